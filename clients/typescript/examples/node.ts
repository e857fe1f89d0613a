/** Node: chats on a channel from the terminal. `node examples/node.js https://localhost:4433 chat:1`. */
import { createInterface } from 'node:readline';
import { Skywave } from 'skywave';
import WebSocket from 'ws';

const [url = 'ws://localhost:8081', name = 'chat:1'] = process.argv.slice(2);

// Node 22 has a WebSocket of its own; Node 20 is given that of the package `ws`.
const client = new Skywave(url, { WebSocket });
client.on('state', ({ state, error }) => {
  console.error(error === undefined ? state : `${state}: ${error.message}`);
});

const channel = client.channel<{ text: string }>(name, { history: 20 });
createInterface({ input: process.stdin }).on('line', (text) => {
  channel.publish({ text }).catch(console.error);
});
for await (const { data, user } of channel) console.log(`${user ?? 'somebody'}: ${data.text}`);
