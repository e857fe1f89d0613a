/** Draws how latencies are spread, as SVG that suits light and dark pages. */
import type { Measured } from './measured.js';

const PANEL = { width: 300, height: 250, gap: 22 };
const MARGIN = { left: 60, top: 112, right: 20, bottom: 56 };
/** Of the axis of percentiles: 99.9 %, where that many were measured. */
const LAST_DECADE = 3;
const PERCENTILES = [0, 0.5, 0.9, 0.99, 0.999];
const LEAST_MS = 30;
const STYLE = `
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #59636e }
  .title { font-size: 15px; font-weight: 600; fill: #1f2328 }
  .panel { font-weight: 600; fill: #1f2328 }
  .paper { fill: #ffffff; stroke: #d1d9e0 }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .axis { stroke: #818b98; stroke-width: 1 }
  .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
  .busy { stroke-width: 1.5; stroke-dasharray: 5 4 }
  .webtransport { stroke: #0969da }
  .websocket { stroke: #d1570a }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    .title, .panel { fill: #f0f6fc }
    .paper { fill: #0d1117; stroke: #3d444d }
    .grid { stroke: #2a313c }
    .axis { stroke: #656c76 }
    .webtransport { stroke: #58a6ff }
    .websocket { stroke: #f0883e }
  }`;

type Scale = (value: number) => number;

export function plot(measured: readonly Measured[], title: string): string {
  const width = MARGIN.left + measured.length * (PANEL.width + PANEL.gap) - PANEL.gap + MARGIN.right;
  const height = MARGIN.top + PANEL.height + MARGIN.bottom;
  const mostMs = Math.max(...measured.flatMap(({ rows }) => rows.map(({ quantiles }) => quantiles.at(1))));
  const y = toY(mostMs);
  const panels = measured.map((one, index) => {
    const left = MARGIN.left + index * (PANEL.width + PANEL.gap);
    return panel(one, left, y, ticks(mostMs), index === 0);
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${title}</title>
<style>${STYLE}
</style>
<rect class="paper" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="6"/>
<text class="title" x="16" y="28">${title}</text>
${legend()}
${panels.join('\n')}
<text x="${width / 2}" y="${height - 14}" text-anchor="middle">share of publications delivered within the time</text>
</svg>
`;
}

function legend(): string {
  const entries = [
    ['webtransport', 'WebTransport, nine quiet channels'],
    ['websocket', 'WebSocket, nine quiet channels'],
    ['webtransport busy', 'WebTransport, the busy channel'],
    ['websocket busy', 'WebSocket, the busy channel'],
  ] as const;
  return entries
    .map(([kind, words], index) => {
      const x = 16 + index * 252;
      return `<line class="curve ${kind}" x1="${x}" y1="47" x2="${x + 26}" y2="47"/><text x="${x + 34}" y="51">${words}</text>`;
    })
    .join('\n');
}

/** Logarithmic, downwards. */
function toY(mostMs: number): Scale {
  const [least, most] = [Math.log(LEAST_MS), Math.log(mostMs * 1.1)];
  return (ms) => MARGIN.top + PANEL.height * (1 - (Math.log(Math.max(ms, LEAST_MS)) - least) / (most - least));
}

/** Each decade of percentiles has the same width, as those of HdrHistogram have. */
function toX(left: number): Scale {
  return (part) => left + (Math.min(-Math.log10(1 - part), LAST_DECADE) / LAST_DECADE) * PANEL.width;
}

function ticks(mostMs: number): number[] {
  return [40, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000].filter((ms) => ms < mostMs * 1.1);
}

const round = (value: number): string => value.toFixed(1);

function panel({ load, rows }: Measured, left: number, y: Scale, millis: number[], isFirst: boolean): string {
  const x = toX(left);
  const [right, bottom] = [left + PANEL.width, MARGIN.top + PANEL.height];
  const lines = millis.map((ms) => {
    const label = ms < 1_000 ? `${ms} ms` : `${ms / 1_000} s`;
    const words = isFirst ? `<text x="${left - 8}" y="${round(y(ms) + 4)}" text-anchor="end">${label}</text>` : '';
    return `<line class="grid" x1="${left}" y1="${round(y(ms))}" x2="${right}" y2="${round(y(ms))}"/>${words}`;
  });
  const marks = PERCENTILES.map((part) => {
    const at = round(x(part));
    const label = part === 0 ? '0' : `${round(part * 100).replace('.0', '')} %`;
    const anchor = part === 0 ? 'start' : part === 0.999 ? 'end' : 'middle';
    return `<line class="grid" x1="${at}" y1="${MARGIN.top}" x2="${at}" y2="${bottom}"/><text x="${at}" y="${bottom + 18}" text-anchor="${anchor}">${label}</text>`;
  });
  // What is to be seen best is drawn last.
  const curves = [...rows].sort((one, other) => Number(other.isBusy) - Number(one.isBusy)).map(({ kind, isBusy, quantiles }) => {
    const points: string[] = [];
    const steps = PANEL.width;
    // Beyond the last one that was measured there is nothing to draw.
    const decades = Math.min(LAST_DECADE, Math.log10(quantiles.count));
    for (let step = 0; step <= steps; step += 1) {
      const part = 1 - 10 ** (-(step / steps) * decades);
      points.push(`${round(x(part))},${round(y(quantiles.at(part)))}`);
    }
    return `<polyline class="curve ${kind}${isBusy ? ' busy' : ''}" points="${points.join(' ')}"/>`;
  });
  return [
    `<text class="panel" x="${left}" y="${MARGIN.top - 30}">${load.name}</text>`,
    `<text x="${left}" y="${MARGIN.top - 12}">busy: ${load.words}</text>`,
    ...lines,
    ...marks,
    `<line class="axis" x1="${left}" y1="${bottom}" x2="${right}" y2="${bottom}"/>`,
    ...curves,
  ].join('\n');
}
