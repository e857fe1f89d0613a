/** The package in Firefox. */
import { launchFirefox } from './places.js';
import { describeSdk, transportsToTest } from './scenarios.js';

describeSdk('Firefox', launchFirefox, transportsToTest());
