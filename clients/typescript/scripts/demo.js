// Builds the package for the demo page, `demo/skywave.js`, which is in the repository so that a node can be built with
// the page where there is no Node.js. Fails when the file there is another one; `--write` brings it up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

const BUNDLE = '../../demo/skywave.js';
const BANNER = `/*
 * The package \`skywave\` as one readable file, for the demo page. Built from clients/typescript/src; do not edit it.
 * After a change there: \`npm ci && npm run demo -- --write\` in clients/typescript.
 */`;

const { outputFiles, metafile } = await build({
  entryPoints: ['src/index.ts'],
  bundle: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  banner: { js: BANNER },
  metafile: true,
  write: false,
});
const foreign = Object.keys(metafile.inputs).filter((path) => !path.startsWith('src/'));
if (foreign.length > 0) throw new Error(`the repository holds our own code only, not ${foreign.join(', ')}`);

const [{ text }] = outputFiles;
if (process.argv.includes('--write')) {
  writeFileSync(BUNDLE, text);
} else if (readFileSync(BUNDLE, 'utf8') !== text) {
  console.error('demo/skywave.js is not what clients/typescript/src builds: `npm run demo -- --write`, and commit it');
  process.exitCode = 1;
}
