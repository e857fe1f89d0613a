/** The demo page in Firefox. */
import { launchFirefox } from './browsers.js';
import { describeDemo } from './scenarios.js';

describeDemo('Firefox', launchFirefox);
