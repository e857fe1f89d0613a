/** The package in Deno and Bun, whose WebSocket is their own, and the example for Node. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { TestNode } from './node.js';
import { freshChannel } from './stage.js';

const RUNTIMES = { Deno: ['deno', 'run', '--allow-all'], Bun: ['bun', 'run'] };
const TIMEOUT_MS = 30_000;

void describe('in other runtimes', () => {
  let node: TestNode;
  before(async () => {
    node = await TestNode.start();
  });
  after(() => node.stop());
  for (const [name, [command = '', ...words]] of Object.entries(RUNTIMES)) {
    void it(`${name} publishes, iterates, reads history and presence, in both encodings`, async () => {
      const script = [...words, 'build/test/real/runtime_script.js', `ws://${node.places.plain}`, freshChannel()];
      const { stdout } = await promisify(execFile)(`node_modules/.bin/${command}`, script, { timeout: TIMEOUT_MS });
      const [first, second] = stdout.trim().split('\n').map((line) => JSON.parse(line) as unknown);
      assert.deepEqual(first, ['websocket', ['one', 'two', 'three'], 3, 1]);
      assert.deepEqual(second, ['websocket', ['one', 'two', 'three'], 6, 1]);
    });
  }
  void it('Node ends as soon as its client is closed or disconnected', async () => {
    for (const end of ['close', 'disconnect']) {
      const script = `
        import { Skywave } from 'skywave';
        import { WebSocket } from 'ws';
        const client = new Skywave('ws://${node.places.plain}', { WebSocket });
        await client.channel('${freshChannel()}').subscribe();
        client.${end}();
        const endedAt = performance.now();
        process.on('exit', () => console.log(performance.now() - endedAt));`;
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], { timeout: TIMEOUT_MS });
      assert.ok(Number(stdout) < 1_500, `${end}: ${stdout} ms`);
    }
  });
  void it('the example for Node shows what is typed', { timeout: TIMEOUT_MS }, async () => {
    const child = spawn(process.execPath, ['build/examples/node.js', `ws://${node.places.plain}`, freshChannel()], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    try {
      child.stdin.write('hi\n');
      const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
      assert.equal(line, 'somebody: hi');
    } finally {
      child.kill();
    }
  });
});
