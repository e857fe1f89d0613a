/** The package in Node. */
import { hereInNode } from './places.js';
import { describeSdk } from './scenarios.js';

describeSdk('Node', () => Promise.resolve(hereInNode()), ['websocket']);
