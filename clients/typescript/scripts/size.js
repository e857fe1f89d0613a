// Measures what an application pays: minified and compressed. Fails when the core grew beyond its budget, or the README
// says something else; `--write` brings the README up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const BUDGET_BYTES = 14.5 * 1024;
const BUNDLES = [
  ['`skywave/core`: WebSocket alone, to the addresses that are given', `export { Skywave } from 'skywave/core'`],
  ['`skywave`: all of it', `export { Skywave } from 'skywave'`],
  ['`skywave` and `skywave/msgpack`', `export { Skywave } from 'skywave'; export { messagePack } from 'skywave/msgpack'`],
  ['`skywave` and `skywave/outbox`', `export { Skywave } from 'skywave'; export { indexedDbOutbox } from 'skywave/outbox'`],
  ['`skywave/tabs`', `export { SharedSkywave } from 'skywave/tabs'`],
];

async function measure(contents) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: process.cwd(), loader: 'js' },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'error',
  });
  const [{ contents: minified }] = outputFiles;
  return { minified: minified.length, compressed: gzipSync(minified, { level: 9 }).length };
}

const sizes = [];
for (const [name, code] of BUNDLES) sizes.push({ name, ...(await measure(code)) });
const kilobytes = (bytes) => `${(bytes / 1024).toFixed(1)} KB`;
const rows = sizes.map(({ name, minified, compressed }) => `| ${name} | ${kilobytes(minified)} | ${kilobytes(compressed)} |`);
const table = ['| what is imported | minified | and compressed |', '|---|--:|--:|', ...rows].join('\n');
console.log(table);

const [core] = sizes;
if (core.compressed > BUDGET_BYTES) {
  console.error(`the core has ${core.compressed} bytes, more than its budget of ${BUDGET_BYTES}`);
  process.exitCode = 1;
}
const readme = readFileSync('README.md', 'utf8');
const updated = readme.replace(/(<!-- size: begin -->)[^]*(<!-- size: end -->)/, (_, begin, end) => `${begin}\n\n${table}\n\n${end}`);
if (updated !== readme) {
  if (process.argv.includes('--write')) {
    writeFileSync('README.md', updated);
  } else {
    console.error('the README says something else: `npm run size -- --write`');
    process.exitCode = 1;
  }
}
