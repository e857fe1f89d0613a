/** The two browsers behind one shape: `open(url)` answers a page with `evaluate`, `click`, `type` and `close`. */
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

const CHROMIUM = process.env.CHROMIUM_BIN ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX_BIN ?? '/usr/bin/firefox-esr';
const LAUNCH_TIMEOUT_MS = 60_000;
const PAGE_TIMEOUT_MS = 20_000;
// Without a sandbox, because test machines are containers that run as root.
const CHROMIUM_ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export async function launchChromium() {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: CHROMIUM_ARGUMENTS,
    timeout: LAUNCH_TIMEOUT_MS,
  });
  return {
    async open(url) {
      // Its own context, as another person's browser would be.
      const context = await browser.newContext();
      const page = await context.newPage();
      page.setDefaultTimeout(PAGE_TIMEOUT_MS);
      await page.goto(url);
      return {
        evaluate: (read, argument) => page.evaluate(read, argument),
        click: (selector) => page.click(selector),
        type: (selector, text) => page.locator(selector).pressSequentially(text),
        close: () => context.close(),
      };
    },
    close: () => browser.close(),
  };
}

export async function launchFirefox() {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: FIREFOX,
    headless: true,
    timeout: LAUNCH_TIMEOUT_MS,
  });
  return {
    async open(url) {
      const context = await browser.createBrowserContext();
      const page = await context.newPage();
      page.setDefaultTimeout(PAGE_TIMEOUT_MS);
      await page.goto(url);
      return {
        evaluate: (read, argument) => page.evaluate(read, argument),
        click: (selector) => page.click(selector),
        type: (selector, text) => page.type(selector, text),
        close: () => context.close(),
      };
    },
    close: () => browser.close(),
  };
}
