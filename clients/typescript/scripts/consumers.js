// Uses the packed package as applications do that know CommonJS alone: Jest with its defaults, webpack 4, TypeScript with
// `node10` and `node16`, plain Node. Installs those tools, so it takes a minute.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const TOOLS = ['jest@29.7.0', 'jest-environment-jsdom@29.7.0', 'webpack@4.47.0'];
const STEP_TIMEOUT_MS = 300_000;
const TSC = resolve('node_modules/.bin/tsc');

const NAMES = {
  skywave: 'Skywave, json',
  'skywave/core': 'Skywave as Core',
  'skywave/msgpack': 'messagePack',
  'skywave/outbox': 'indexedDbOutbox',
  'skywave/tabs': 'SharedSkywave',
};
const REQUIRES = Object.entries(NAMES).map(([path, names]) => `const { ${names.replace(' as', ':')} } = require('${path}');`);
const IMPORTS = Object.entries(NAMES).map(([path, names]) => `import { ${names} } from '${path}';`);
/** Fails where a class is there twice: what MessagePack throws is known to whoever asks for it. */
const USE = `
const clients = [Skywave, Core, SharedSkywave].map((Client) => new Client('ws://node.example', {
  autoConnect: false, encoding: messagePack,
}));
clients.push(new Skywave('ws://node.example', { autoConnect: false, outbox: indexedDbOutbox() }));
const { length } = [...json.fromMessage('[{"later":{}}]'), ...messagePack.fromMessage(Uint8Array.of(8, 129, 165, 108, 97, 116, 101, 114, 128))];
if (length !== 0) throw new Error('a later frame is no fault');
if (clients.some(({ state }) => state !== 'disconnected')) throw new Error('it is not expected to connect');
for (const client of clients) client.close();
`;

const folder = mkdtempSync(join(tmpdir(), 'skywave-consumers-'));
const write = (file, ...lines) => writeFileSync(join(folder, file), lines.join('\n'));
const run = (command, words, env = {}) => {
  const options = { cwd: folder, env: { ...process.env, ...env }, encoding: 'utf8', stdio: 'pipe', timeout: STEP_TIMEOUT_MS };
  try {
    return execFileSync(command, words, options);
  } catch (error) {
    throw new Error(`${command} ${words.join(' ')}\n${error.stdout}\n${error.stderr}`, { cause: error });
  }
};

const STEPS = {
  'Node requires it'() {
    write('use.cjs', ...REQUIRES, USE);
    run(process.execPath, ['use.cjs']);
  },
  'Node imports it'() {
    write('use.mjs', ...IMPORTS, USE);
    run(process.execPath, ['use.mjs']);
  },
  'Jest runs it, with its defaults and with jsdom'() {
    mkdirSync(join(folder, 'jest'));
    write('jest/package.json', '{}');
    write('jest/node.test.js', ...REQUIRES, `test('it can be used', () => {${USE}});`);
    // Nothing but JSON: the library for MessagePack needs a TextEncoder, which jsdom does not have.
    const others = REQUIRES.filter((one) => !one.includes('msgpack'));
    const use = "expect(new Skywave('ws://node.example', { encoding: json, autoConnect: false }).state).toBe('disconnected')";
    write('jest/page.test.js', '/** @jest-environment jsdom */', ...others, `test('it can be used', () => { ${use}; });`);
    run('npx', ['jest', '--rootDir', 'jest']);
  },
  'webpack 4 bundles it'() {
    // All but MessagePack, whose library has a newer syntax than it reads.
    const others = IMPORTS.filter((one) => !one.includes('msgpack'));
    const use = "console.log([Skywave, Core, SharedSkywave].map((One) => new One('ws://node.example', { autoConnect: false }).state).join());";
    write('entry.js', ...others, use);
    write(
      'webpack.cjs',
      `require('webpack')({ mode: 'production', target: 'node', entry: './entry.js', output: { path: __dirname, filename: 'bundle.js' } },`,
      `  (error, stats) => { if (error || stats.hasErrors()) { console.error(error || stats.toString()); process.exit(1); } });`,
    );
    // Its hashes are those of an older OpenSSL.
    run(process.execPath, ['--openssl-legacy-provider', 'webpack.cjs']);
    assert.equal(run(process.execPath, ['bundle.js']).trim(), 'disconnected,disconnected,disconnected');
  },
  'TypeScript finds its declarations, however it resolves modules'() {
    write('typed.ts', ...IMPORTS, USE);
    const options = { noEmit: true, strict: true, types: [], lib: ['es2022', 'dom', 'dom.iterable'], target: 'es2022' };
    for (const [module, moduleResolution] of [['commonjs', 'node10'], ['node16', 'node16'], ['nodenext', 'nodenext'], ['esnext', 'bundler']]) {
      write('tsconfig.json', JSON.stringify({ compilerOptions: { ...options, module, moduleResolution }, files: ['typed.ts'] }));
      run(TSC, []);
    }
  },
};

try {
  const tarball = execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], { encoding: 'utf8' }).trim().split('\n').at(-1);
  write('package.json', '{ "private": true }');
  run('npm', ['install', '--no-audit', '--no-fund', '--silent', `./${tarball}`, ...TOOLS]);
  for (const [name, step] of Object.entries(STEPS)) {
    step();
    console.log(`ok: ${name}`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
