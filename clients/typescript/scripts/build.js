// Builds what is published: the code with short internal names, and the declarations; as modules, and for CommonJS.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';
import { SHORTENED } from './shortened.js';

const COMMON = 'dist/cjs';

rmSync('dist', { recursive: true, force: true });
await build({
  entryPoints: ['src/index.ts', 'src/core.ts', 'src/msgpack.ts', 'src/indexeddb_outbox.ts', 'src/shared_skywave.ts'],
  bundle: true,
  splitting: true,
  packages: 'external',
  format: 'esm',
  target: 'es2022',
  // Constants stand where they are used.
  minifySyntax: true,
  sourcemap: true,
  outdir: 'dist',
  chunkNames: 'chunks/[name]-[hash]',
  mangleProps: new RegExp(`^(${SHORTENED.join('|')})$`),
});
execFileSync('tsc', ['--project', 'tsconfig.build.json', '--emitDeclarationOnly'], { stdio: 'inherit' });

// For CommonJS file by file, so that all entries share their classes; in the syntax that webpack 4 reads.
const files = readdirSync('dist', { recursive: true, encoding: 'utf8' });
await build({
  entryPoints: files.filter((file) => file.endsWith('.js')).map((file) => `dist/${file}`),
  format: 'cjs',
  target: 'es2018',
  sourcemap: true,
  outbase: 'dist',
  outdir: COMMON,
});
for (const folder of new Set(files.filter((file) => file.includes('/') && /\.d\.ts/.test(file)).map((file) => file.replace(/\/[^/]*$/, '')))) {
  mkdirSync(`${COMMON}/${folder}`, { recursive: true });
}
for (const file of files) {
  if (file.endsWith('.d.ts')) copyFileSync(`dist/${file}`, `${COMMON}/${file}`);
  else if (file.endsWith('.d.ts.map')) {
    writeFileSync(`${COMMON}/${file}`, readFileSync(`dist/${file}`, 'utf8').replace(/"((\.\.\/)+)src\//g, '"../$1src/'));
  }
}
writeFileSync(`${COMMON}/package.json`, JSON.stringify({ type: 'commonjs', sideEffects: false }));

// Whoever does not know `exports` finds `skywave/core` and the others as folders.
const { exports: entries } = JSON.parse(readFileSync('package.json', 'utf8'));
for (const [name, { require: common }] of Object.entries(entries)) {
  if (name === '.' || common === undefined) continue;
  const [main, types] = [common.default, common.types].map((file) => file.replace('./', '../'));
  mkdirSync(name, { recursive: true });
  writeFileSync(`${name}/package.json`, JSON.stringify({ main, types, sideEffects: false }));
}
