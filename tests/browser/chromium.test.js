/** The demo page in Chromium. */
import { launchChromium } from './browsers.js';
import { describeDemo } from './scenarios.js';

describeDemo('Chromium', launchChromium);
