// One chart as a figure: caption with a legend that holds the values under the crosshair, and an SVG.

const MARGIN = { left: 54, right: 12, top: 8, bottom: 22 };
let patterns = 0;

/** The tile that fills an area of `look`, drawn so that the areas differ in print and to every eye. */
function pattern(look, id) {
  const line = d => s('path', { d, stroke: look.color, 'stroke-width': 1.2, fill: 'none', opacity: 0.75 });
  const tile = s('pattern', { id, width: 6, height: 6, patternUnits: 'userSpaceOnUse' },
    s('rect', { width: 6, height: 6, fill: look.color, opacity: look.fill }));
  const draw = {
    diagonal: () => [line('M-1,1L1,-1M0,6L6,0M5,7L7,5')],
    back: () => [line('M-1,5L1,7M0,0L6,6M5,-1L7,1')],
    across: () => [line('M0,3L6,3')],
    upright: () => [line('M3,0L3,6')],
    cross: () => [line('M0,3L6,3M3,0L3,6')],
    dots: () => [s('circle', { cx: 3, cy: 3, r: 1.2, fill: look.color })],
  }[look.pattern];
  tile.append(...(draw?.() ?? []));
  return tile;
}

const sampleLine = look => s('path', { d: 'M0,5L22,5', stroke: look.color, 'stroke-width': Math.max(look.width, 1.8), 'stroke-dasharray': look.dash || undefined, fill: 'none' });

/** A small picture of how a series is drawn. */
function swatch(series, area) {
  const svg = s('svg', { class: 'swatch', width: 22, height: 10, 'aria-hidden': 'true' });
  if (area) {
    const id = `pattern-${patterns++}`;
    svg.append(s('defs', {}, pattern(series.look, id)), s('rect', { width: 22, height: 10, fill: `url(#${id})`, stroke: series.look.color }));
  } else {
    svg.append(sampleLine(series.look));
  }
  return svg;
}

class Plot {
  /** @param view what is shown: { window, zone, hidden } and what to call: toggled() */
  constructor(chart, world, view) {
    Object.assign(this, { chart, world, view });
    this.values = new Map();
    this.svg = s('svg', { class: 'plot', role: 'img', height: chart.height });
    // What is drawn last lies on top and comes first; worlds keep their order.
    const listed = chart.overlaid ? this.everySeries() : this.everySeries().toReversed();
    const legend = h('ul', { class: 'legend' }, ...listed.map(series => this.legendItem(series)));
    this.figure = h('figure', { class: 'chart', 'data-chart': chart.id, 'data-world': world?.index },
      h('figcaption', {}, h('h3', {}, chart.title, h('span', { class: 'unit' }, chart.unit)), legend), this.svg);
  }

  everySeries() {
    return [...(this.chart.stacked ?? []), ...this.chart.series];
  }

  key(series) {
    return `${this.chart.id}/${series.id}`;
  }

  legendItem(series) {
    const value = h('output', { class: 'value' }, ' ');
    this.values.set(series, value);
    if (series.textOnly) return h('li', { 'data-series': series.id }, h('span', { class: 'series' }, series.label), value);
    const area = this.chart.stacked?.includes(series) || (series.look.pattern && series.look.fill);
    const button = h('button', {
      type: 'button', class: 'series', 'aria-pressed': !this.view.hidden.has(this.key(series)), title: 'Show or hide',
      click: () => this.view.toggled(this.key(series)),
    }, swatch(series, area), series.label);
    return h('li', { 'data-series': series.id }, button, value);
  }

  /** The highest value in view, of what is not hidden. */
  top() {
    const shown = series => !series.textOnly && !this.view.hidden.has(this.key(series));
    const window = this.view.window;
    const most = this.chart.series.filter(shown).map(series => mostWithin(series.values, series.world, window));
    if (this.chart.stacked) most.push(mostWithin(this.stack().at(-1)?.upper ?? [], this.world, window));
    return Math.max(...most, 0);
  }

  /** The stacked series, each with its lower and upper edge. */
  stack() {
    const shown = this.chart.stacked.filter(series => !this.view.hidden.has(this.key(series)));
    const key = shown.map(series => series.id).join();
    if (this.stacked?.key !== key) {
      let lower = new Float64Array(this.world.points);
      const layers = shown.map(series => {
        const upper = lower.map((below, i) => below + (series.values[i] || 0));
        const layer = { series, lower, upper };
        lower = upper;
        return layer;
      });
      this.stacked = { key, layers };
    }
    return this.stacked.layers;
  }

  xOf(time) {
    const { from, to } = this.view.window;
    return MARGIN.left + (time - from) / (to - from) * this.inner.width;
  }

  timeAt(x) {
    const { from, to } = this.view.window;
    return from + (x - MARGIN.left) / this.inner.width * (to - from);
  }

  /** Draws the chart `width` pixels wide, its axis up to `top`. */
  draw(width, top, marks) {
    const { chart, view } = this;
    const height = chart.height;
    this.inner = { width: Math.max(10, width - MARGIN.left - MARGIN.right), height: height - MARGIN.top - MARGIN.bottom };
    const ticks = valueTicks(top || 1, chart.height > 150 ? 4 : 2, chart.whole);
    const xOf = this.xOf.bind(this);
    const yOf = value => MARGIN.top + this.inner.height * (1 - value / ticks.at(-1));
    this.yOf = yOf;
    const [right, floor] = [MARGIN.left + this.inner.width, MARGIN.top + this.inner.height];
    const clip = `clip-${patterns++}`;
    const defs = s('defs', {}, s('clipPath', { id: clip }, s('rect', { x: MARGIN.left, y: MARGIN.top - 2, width: this.inner.width, height: this.inner.height + 3 })));

    const grid = s('g', { class: 'grid' });
    for (const tick of ticks) {
      grid.append(s('line', { x1: MARGIN.left, x2: right, y1: at(yOf(tick)), y2: at(yOf(tick)), class: tick ? null : 'floor' }),
        s('text', { x: MARGIN.left - 8, y: at(yOf(tick)) + 3.5, 'text-anchor': 'end' }, chart.id === 'cost' ? `$${axisText(tick)}` : axisText(tick)));
    }
    const room = width < 500 ? 80 : 110;
    let end = 0;
    for (const { time, label, midnight } of timeTicks(view.window.from, view.window.to, this.inner.width / room, view.zone)) {
      const x = at(xOf(time));
      const half = label.length * 3.4;
      const middle = Math.min(Math.max(x, MARGIN.left + half), right - half);
      grid.append(s('line', { x1: x, x2: x, y1: MARGIN.top, y2: floor + 4, class: midnight ? 'midnight' : null }));
      if (middle - half < end) continue;
      grid.append(s('text', { x: middle, y: floor + 16, 'text-anchor': 'middle', class: midnight ? 'midnight' : null }, label));
      end = middle + half + 6;
    }

    const drawn = s('g', { 'clip-path': `url(#${clip})` });
    if (chart.stacked) this.drawStack(drawn, defs);
    for (const series of chart.series) {
      if (!series.textOnly && !view.hidden.has(this.key(series))) this.drawSeries(series, drawn, defs);
    }
    this.drawBounds(drawn, ticks.at(-1), right);
    for (const mark of marks) {
      const x = at(xOf(mark.at));
      drawn.append(s('path', { d: `M${x},${floor}v-${mark.kind === 'Warning' ? 9 : 5}`, class: `mark ${mark.kind === 'Warning' ? 'warning' : ''}` }));
    }
    this.selection = s('rect', { class: 'selection', y: MARGIN.top, height: this.inner.height, width: 0 });
    this.cross = s('g', { class: 'cross', visibility: 'hidden' });
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.svg.setAttribute('aria-label', this.described());
    this.svg.replaceChildren(defs, grid, drawn, this.selection, this.cross);
  }

  drawBounds(group, top, right) {
    const bounds = this.chart.bounds;
    if (!bounds) return;
    const line = (value, name, below) => {
      if (value > top) return;
      const y = at(this.yOf(value));
      group.append(s('line', { x1: MARGIN.left, x2: right, y1: y, y2: y, class: 'bound' }),
        s('text', { x: right - 4, y: below ? y + 11 : y - 4, 'text-anchor': 'end', class: 'bound' }, `${name} ${value}`));
    };
    line(bounds[1], 'max', this.yOf(bounds[1]) < MARGIN.top + 12);
    if (bounds[0] > 0) line(bounds[0], 'min');
  }

  drawSeries(series, group, defs) {
    const { look, world } = series;
    const lines = runs(series.values, world, this.view.window, this.xOf.bind(this), series.steps, look.sparse);
    if (look.fill) {
      const id = `pattern-${patterns++}`;
      defs.append(pattern(look, id));
      group.append(s('path', { d: areaPath(lines, this.yOf), fill: `url(#${id})` }));
    }
    group.append(s('path', {
      d: linePath(lines, this.yOf), fill: 'none', stroke: look.color, 'stroke-width': look.width, 'stroke-dasharray': look.dash || undefined,
      'stroke-linejoin': 'round', 'data-series': series.id,
    }));
  }

  drawStack(group, defs) {
    const xOf = this.xOf.bind(this);
    // From the top down, each down to the floor: what lies below is painted over it.
    for (const { series, upper } of this.stack().toReversed()) {
      const id = `pattern-${patterns++}`;
      defs.append(pattern(series.look, id));
      const d = areaPath(runs(upper, this.world, this.view.window, xOf, true), this.yOf);
      group.append(s('path', { d, class: 'clear' }), s('path', { d, fill: `url(#${id})`, stroke: series.look.color, 'stroke-width': 0.8, 'data-series': series.id }));
    }
  }

  /** The crosshair at `time`, the values in the legend; none for null. */
  point(time) {
    const { from, to } = this.view.window;
    const shown = time !== null && time >= from && time <= to;
    this.cross.setAttribute('visibility', shown ? 'visible' : 'hidden');
    const parts = [];
    if (shown) {
      const x = at(this.xOf(time));
      parts.push(s('line', { x1: x, x2: x, y1: MARGIN.top, y2: MARGIN.top + this.inner.height }));
    }
    for (const [series, output] of this.values) {
      const point = time === null ? -1 : pointAt(series.world, time);
      const value = point < 0 ? NaN : series.values[point];
      output.textContent = point < 0 ? ' ' : series.textOnly || !this.chart.stacked?.includes(series) ? this.chart.text(value) : numberText(value);
      const isLine = !series.textOnly && this.chart.series.includes(series) && !this.view.hidden.has(this.key(series));
      if (shown && isLine && !Number.isNaN(value)) {
        parts.push(s('circle', { cx: at(this.xOf(time)), cy: at(this.yOf(value)), r: 3.2, stroke: series.look.color }));
      }
    }
    this.cross.replaceChildren(...parts);
  }

  /** Marks the times between which is dragged. */
  select(span) {
    const [a, b] = span ? span.map(time => this.xOf(time)) : [0, 0];
    this.selection.setAttribute('x', at(Math.min(a, b)));
    this.selection.setAttribute('width', at(Math.abs(b - a)));
  }

  /** The chart in a sentence, for who does not see it. */
  described() {
    const window = this.view.window;
    const of = series => {
      const [first, last] = pointsWithin(series.world, window);
      let least = Infinity, most = -Infinity;
      for (let i = first; i <= last; i++) {
        if (series.values[i] < least) least = series.values[i];
        if (series.values[i] > most) most = series.values[i];
      }
      return most < least ? `${series.label} has no values` : `${series.label} from ${this.chart.text(least)} to ${this.chart.text(most)}`;
    };
    const { utc: from } = bothTimes(window.from), { utc: to } = bothTimes(window.to);
    const where = this.world && WORLDS.length > 1 ? ` of ${this.world.name}` : '';
    return `${this.chart.title}${where}, ${this.chart.unit}, ${from} to ${to} UTC: ${this.everySeries().map(of).join('; ')}.`;
  }
}
