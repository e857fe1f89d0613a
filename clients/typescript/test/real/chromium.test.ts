/** The package in Chromium. */
import { launchChromium } from './places.js';
import { describeSdk, transportsToTest } from './scenarios.js';

describeSdk('Chromium', launchChromium, transportsToTest());
