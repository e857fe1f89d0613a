/** The package in Chromium. */
import { launchChromium } from './places.js';
import { describeSdk } from './scenarios.js';

describeSdk('Chromium', launchChromium, ['webtransport', 'websocket']);
