// Measures what an application pays: the core, minified and compressed, and fails when it grew beyond its budget.
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const BUDGET_BYTES = 12 * 1024;

async function measure(code) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: process.cwd(), loader: 'js' },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
  });
  return { minified: outputFiles[0].contents.length, compressed: gzipSync(outputFiles[0].contents, { level: 9 }).length };
}

const core = await measure(`export { Skywave } from './dist/index.js';`);
const withMessagePack = await measure(
  `export { Skywave } from './dist/index.js'; export { messagePack } from './dist/msgpack.js';`,
);
const show = (name, { minified, compressed }) =>
  console.log(`${name}: ${minified.toLocaleString('en')} bytes minified, ${compressed.toLocaleString('en')} compressed by gzip`);
show('core', core);
show('with MessagePack', withMessagePack);
if (core.compressed > BUDGET_BYTES) {
  console.error(`the core is larger than its budget of ${BUDGET_BYTES.toLocaleString('en')} bytes`);
  process.exit(1);
}
