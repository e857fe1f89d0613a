/** Uses the package and prints what came of it: what `runtimes.test.ts` runs in other runtimes. */
import { Skywave, type SkywaveOptions } from 'skywave';
import { messagePack } from 'skywave/msgpack';

const [url, name] = process.argv.slice(2);
if (url === undefined || name === undefined) throw new Error('expected a URL and a channel');
for (const options of [{}, { encoding: messagePack }] satisfies SkywaveOptions[]) {
  const client = new Skywave(url, options);
  const channel = client.channel<string>(name, { history: 10, presence: true });
  const seen: string[] = [];
  for (const word of ['one', 'two', 'three']) await channel.publish(word);
  for await (const { data } of channel) {
    if (seen.push(data) < 3) continue;
    const { publications } = await channel.history({ limit: 100 });
    const { members } = await channel.presence();
    console.log(JSON.stringify([client.connection?.transport, seen, publications.length, members.length]));
    break;
  }
  client.close();
}
