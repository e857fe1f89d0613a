/** Writes what was measured into the documentation: tables and a plot. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TransportKind } from 'skywave';
import type { Measured } from './measured.js';
import { plot } from './plot.js';

/** Beyond which a publication was held up by something that was lost. */
const LATE_MS = 100;
const NAMES: Record<TransportKind, string> = { webtransport: 'WebTransport', websocket: 'WebSocket' };

const ms = (value: number): string => `${value.toFixed(0)} ms`;
const percent = (part: number): string => `${(part * 100).toFixed(1)} %`;

/** Each channel, transport and load. */
export function table(measured: readonly Measured[]): string {
  const rows = measured.flatMap(({ load, rows: all }) =>
    all.map(({ kind, isBusy, quantiles }) =>
      `| ${[
        load.name,
        isBusy ? 'the busy one' : 'nine quiet ones',
        NAMES[kind],
        quantiles.count.toLocaleString('en'),
        ...[0.5, 0.9, 0.99, 1].map((part) => ms(quantiles.at(part))),
        percent(quantiles.laterThan(LATE_MS)),
      ].join(' | ')} |`,
    ),
  );
  return [
    `| load | channels | transport | delivered once | p50 | p90 | p99 | max | later than ${LATE_MS} ms |`,
    '|---|---|---|--:|--:|--:|--:|--:|--:|',
    ...rows,
  ].join('\n');
}

/** The quiet channels alone, the transports beside each other. */
export function summary(measured: readonly Measured[]): string {
  const rows = measured.map(({ load, rows: all }) => {
    const cells = (['webtransport', 'websocket'] as const).flatMap((kind) => {
      const quantiles = all.find((row) => row.kind === kind && !row.isBusy)?.quantiles;
      if (quantiles === undefined) throw new Error(`${kind} was not measured`);
      return [ms(quantiles.at(0.5)), ms(quantiles.at(0.99)), percent(quantiles.laterThan(LATE_MS))];
    });
    return `| ${load.words} | ${cells.join(' | ')} |`;
  });
  const late = `later than ${LATE_MS} ms`;
  return [`| the busy channel has | WebTransport p50 | p99 | ${late} | WebSocket p50 | p99 | ${late} |`, '|---|--:|--:|--:|--:|--:|--:|', ...rows].join('\n');
}

/** Brings the page, its plot and the summary among all figures under `root` up to date. */
export function write(root: string, measured: readonly Measured[], conditions: string, surroundings: string): void {
  const title = `From publish to delivery in Chromium: ${conditions}`;
  writeFileSync(join(root, 'docs/browser-latency.svg'), plot(measured, title));
  replace(join(root, 'docs/browser-latency.md'), `${table(measured)}\n\n${conditions}; ${surroundings}.`);
  replace(join(root, 'docs/figures.md'), summary(measured));
}

function replace(file: string, text: string): void {
  const old = readFileSync(file, 'utf8');
  const marked = /(<!-- browser latency: begin -->)[^]*(<!-- browser latency: end -->)/;
  if (!marked.test(old)) throw new Error(`${file} has no place for it`);
  writeFileSync(file, old.replace(marked, (_, begin: string, end: string) => `${begin}\n\n${text}\n\n${end}`));
}
