// Renames in the compiled tests, and in what they test, what the build makes short: code that reaches such a name by a text
// that holds it fails here as it does in the package.
import { readdirSync } from 'node:fs';
import { build } from 'esbuild';
import { SHORTENED } from './shortened.js';

/** Names that tests have from elsewhere, too: of Node's timers, and of the golden vectors. */
const FOREIGN = ['tick', 'frames', 'urls', 'failed'];

const names = SHORTENED.filter((name) => !FOREIGN.includes(name));
const files = readdirSync('build', { recursive: true, encoding: 'utf8' });
await build({
  entryPoints: files.filter((file) => /^(src|test.unit)\b.*\.js$/.test(file)).map((file) => `build/${file}`),
  outdir: 'build',
  outbase: 'build',
  allowOverwrite: true,
  format: 'esm',
  target: 'es2022',
  mangleProps: new RegExp(`^(${names.join('|')})$`),
  // Deterministic, so that it is the same in all files.
  mangleCache: Object.fromEntries(names.map((name) => [name, `${name}$`])),
});
