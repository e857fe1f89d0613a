/** The package as it is published. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { CloseCode, ErrorCode } from '../../src/codes.js';
import { VERSION } from '../../src/version.js';

const read = (file: string): string => readFileSync(file, 'utf8');

describe('the package', () => {
  it('tells nodes the version that it has', () => {
    const { version } = JSON.parse(read('package.json')) as { version: string };
    assert.equal(VERSION, version);
  });

  it('knows all codes of the protocol, with their numbers', () => {
    const document = read('../../docs/protocol.md');
    const rows = [...document.matchAll(/^\| (\d+) \| `(\w+)` \| (yes|no) \|/gm)];
    const told = (isClose: boolean): Record<string, number> =>
      Object.fromEntries(
        rows.filter(([, code]) => Number(code) >= 3_000 === isClose).map(([, code, word]): [string, number] => [word ?? '', Number(code)]),
      );
    assert.deepEqual(told(false), { ...ErrorCode });
    assert.deepEqual(told(true), { ...CloseCode });
  });

  it('has a lockfile that names no registry', () => {
    assert.ok(!read('package-lock.json').includes('"resolved"'));
  });
});
