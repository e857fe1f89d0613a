/** The package in Firefox. */
import { launchFirefox } from './places.js';
import { describeSdk } from './scenarios.js';

describeSdk('Firefox', launchFirefox, ['webtransport', 'websocket']);
