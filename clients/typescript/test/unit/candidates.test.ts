/** In which order nodes are tried. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Address, parseAddress } from '../../src/address.js';
import { Candidates } from '../../src/candidates.js';

const at = (name: string): Address => parseAddress(`https://${name}`);
const names = (candidates: Candidates): string[] =>
  candidates.order(0).map(({ websocket }) => new URL(websocket ?? '').hostname);

/** At `a` in `eu`, after a handshake of 20 ms. */
function atA(): Candidates {
  const candidates = new Candidates([at('a')]);
  candidates.succeeded(at('a'), 'eu');
  candidates.measured(at('a'), 20);
  candidates.learn([
    { region: 'eu', address: at('b') },
    { region: 'ap', address: at('c') },
    { region: 'us', address: at('d') },
  ]);
  return candidates;
}

describe('candidates', () => {
  it('of the own region come before regions never seen, and those as told', () => {
    assert.deepEqual(names(atA()), ['a', 'b', 'c', 'd']);
  });

  it('that are fastest come after the current one', () => {
    const candidates = atA();
    candidates.measured(at('d'), 10);
    candidates.measured(at('c'), 300);
    assert.deepEqual(names(candidates), ['a', 'd', 'b', 'c']);
    candidates.measured(at('d'), 1_010);
    assert.equal(candidates.handshakeMs(at('d')), 260);
    assert.deepEqual(names(candidates), ['a', 'b', 'd', 'c']);
  });

  it('that failed are not tried again before the round is over', () => {
    const candidates = atA();
    for (const name of ['b', 'a', 'c']) candidates.failed(at(name));
    assert.deepEqual(names(candidates), ['d']);
    candidates.failed(at('d'));
    assert.ok(candidates.isExhausted(0));
    candidates.beginRound();
    assert.equal(names(candidates).length, 4);
  });

  it('keep the current one and the given ones, and a bounded number of others', () => {
    const candidates = new Candidates([at('a')]);
    candidates.go(at('x'));
    candidates.learn(Array.from({ length: 100 }, (_, index) => ({ region: 'us', address: at(`r${index}`) })));
    assert.equal(names(candidates)[0], 'x');
    assert.equal(names(candidates).length, 17);
    candidates.go(at('y'));
    assert.equal(names(candidates)[0], 'y');
    assert.equal(names(candidates).length, 17);
  });
});

describe('an address', () => {
  it('has a path and names its transports by its scheme', () => {
    const { webtransport, websocket, isSecure } = parseAddress('https://example.com');
    assert.equal(webtransport, 'https://example.com/v1/connect');
    assert.equal(websocket, 'wss://example.com/v1/connect');
    assert.ok(isSecure);
    assert.equal(parseAddress('wss://example.com:9').webtransport, undefined);
    assert.equal(parseAddress('wss://example.com:9').websocket, 'wss://example.com:9/v1/connect');
    assert.equal(parseAddress('http://localhost').websocket, 'ws://localhost/v1/connect');
    assert.equal(parseAddress('ws://localhost').isSecure, false);
  });

  it('may name the two transports apart', () => {
    const { webtransport, websocket } = parseAddress({ webtransport: 'https://a:4433', websocket: 'ws://a:8081' });
    assert.equal(webtransport, 'https://a:4433/v1/connect');
    assert.equal(websocket, 'ws://a:8081/v1/connect');
  });

  it('may have a base path, with and without what is below it', () => {
    for (const tail of ['', '/', '//', '/v1/connect', '/v1/connect/', '#top']) {
      assert.equal(parseAddress(`https://example.com${tail}`).webtransport, 'https://example.com/v1/connect', tail);
      assert.equal(parseAddress(`https://example.com/rt${tail}`).webtransport, 'https://example.com/rt/v1/connect', tail);
      assert.equal(parseAddress(`ws://example.com/a/b${tail}`).websocket, 'ws://example.com/a/b/v1/connect', tail);
    }
    assert.equal(parseAddress('wss://example.com:9/x/?a=b').websocket, 'wss://example.com:9/x/v1/connect?a=b');
  });
});
