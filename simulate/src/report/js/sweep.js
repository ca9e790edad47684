// A sweep: what each setting costs and leaves unserved, which of them lie on the Pareto front, and which is recommended.

const COST = { dollars: ['Cost', value => dollars(value)], podHours: ['Pod-hours', numberText] };
const SHARES = [0, 0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
const plain = value => String(value);

class SweepView {
  constructor(section) {
    [this.costName, this.costText] = COST[SWEEP.unit];
    this.order = { column: 'cost', down: false };
    section.hidden = false;
    this.svg = s('svg', { class: 'scatter', height: 340, role: 'img', 'aria-label': this.described() });
    this.told = h('p', { class: 'told', role: 'status' });
    this.body = h('tbody');
    this.rows = SWEEP.points.map((point, i) => this.row(point, i));
    section.append(...[this.recommendation(),
      h('figure', { class: 'chart', 'data-chart': 'sweep' },
        h('figcaption', {}, h('h3', {}, `${this.costName} against unserved load`, h('span', { class: 'unit' }, 'one mark a setting; better to the lower left')),
          h('ul', { class: 'legend' }, ...[['setting', 'Setting'], ['front', 'Pareto front'], ['recommended', 'Recommended']].map(([kind, name]) =>
            h('li', {}, s('svg', { class: 'swatch', width: 14, height: 14, 'aria-hidden': 'true' }, this.mark(kind, 7, 7)), name)))),
        this.svg, this.told),
      scrolled('Settings', h('table', { class: 'figures settings' }, h('thead', {}, this.header()), this.body))].filter(Boolean));
    this.svg.addEventListener('pointermove', event => this.point(this.near(event)));
    this.svg.addEventListener('pointerleave', () => this.point(null));
    this.svg.addEventListener('click', event => {
      const index = this.near(event);
      if (index !== null) this.rows[index].scrollIntoView({ block: 'nearest' });
    });
    this.sort();
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  name(point) {
    return SWEEP.keys.map((key, i) => `${key} ${plain(point.values[i])}`).join(', ');
  }

  figures(point) {
    return `${this.name(point)}: ${this.costText(point.cost)}, ${percent(point.summary.unservedShare)} unserved`;
  }

  described() {
    const front = SWEEP.points.filter(point => point.front);
    return `${SWEEP.points.length} settings, ${this.costName} against unserved load. Pareto front: ${front.map(point => this.figures(point)).join('; ')}.`;
  }

  recommendation() {
    if (SWEEP.limit === null) return null;
    const point = SWEEP.points[SWEEP.recommended];
    if (!point) {
      return h('p', { class: 'notes' }, `No setting leaves less than ${percent(SWEEP.limit)} unserved.`);
    }
    return h('div', { class: 'recommended' },
      h('p', {}, h('strong', {}, this.name(point)), ` costs ${this.costText(point.cost)} and leaves ${percent(point.summary.unservedShare)} unserved: the cheapest of at most ${percent(SWEEP.limit)}.`),
      ...SWEEP.patches.map(command => h('pre', {}, h('code', {}, command))));
  }

  columns() {
    return [
      ...SWEEP.keys.map((key, i) => ({ id: `key-${i}`, name: key, value: point => point.values[i], text: plain })),
      { id: 'cost', name: this.costName, value: point => point.cost, text: this.costText },
      { id: 'unserved', name: 'Unserved', value: point => point.summary.unservedShare, text: percent },
      ...(SWEEP.unit === 'podHours' ? [] : [{ id: 'pods', name: 'Pod-hours', value: point => point.summary.podHours, text: numberText }]),
      { id: 'nodes', name: 'Node-hours', value: point => point.summary.nodeHours, text: numberText },
      { id: 'events', name: 'Scale events', value: point => point.summary.scaleEvents, text: numberText },
    ];
  }

  header() {
    this.heads = this.columns().map(column => h('th', { scope: 'col' },
      h('button', { type: 'button', class: 'link', click: () => this.sort(column.id) }, column.name)));
    return h('tr', {}, ...this.heads, h('th', { scope: 'col' }, 'Front'));
  }

  row(point, i) {
    const rank = i === SWEEP.recommended ? 'recommended' : point.front ? 'front' : '';
    return h('tr', { class: rank, 'data-setting': i, pointerenter: () => this.point(i), pointerleave: () => this.point(null) },
      ...this.columns().map(column => h('td', {}, column.text(column.value(point)))),
      h('td', {}, rank === 'recommended' ? '★ recommended' : rank ? '◆ front' : ''));
  }

  /** Sorts by a column; the other way round if it is sorted by it already. */
  sort(id) {
    if (id) this.order = { column: id, down: this.order.column === id && !this.order.down };
    const columns = this.columns();
    const { value } = columns.find(column => column.id === this.order.column);
    const rows = SWEEP.points.map((point, i) => [value(point), i]);
    rows.sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : 0) * (this.order.down ? -1 : 1) || i - j);
    this.body.replaceChildren(...rows.map(([, i]) => this.rows[i]));
    this.heads.forEach((head, i) => {
      const sorted = columns[i].id === this.order.column;
      head.setAttribute('aria-sort', sorted ? (this.order.down ? 'descending' : 'ascending') : 'none');
    });
  }

  /** Marks differ by form: a dot, a diamond, a star. */
  mark(kind, x, y) {
    const d = {
      setting: () => `M${x - 3},${y}a3,3 0 1,0 6,0a3,3 0 1,0 -6,0`,
      front: () => `M${x},${y - 5}l5,5l-5,5l-5,-5Z`,
      recommended: () => 'M' + Array.from({ length: 10 }, (_, i) => {
        const [angle, radius] = [i * Math.PI / 5 - Math.PI / 2, i % 2 ? 3.4 : 8];
        return `${at(x + radius * Math.cos(angle))},${at(y + radius * Math.sin(angle))}`;
      }).join('L') + 'Z',
    }[kind]();
    return s('path', { d, class: `setting ${kind}` });
  }

  draw(width = this.svg.clientWidth) {
    if (!width) return;
    const height = 340, left = 64, right = width - 20, top = 14, floor = height - 44;
    const costs = SWEEP.points.map(point => point.cost);
    const [least, most] = [Math.min(...costs), Math.max(...costs)];
    const ticks = valueTicks((most - least) || most || 1, Math.max(2, Math.floor(width / 140)), false);
    const step = ticks[1];
    const from = Math.floor(least / step) * step;
    const to = Math.max(from + step, Math.ceil(most / step) * step);
    const highest = Math.max(...SWEEP.points.map(point => point.summary.unservedShare), SWEEP.limit ?? 0, 1e-4);
    const xOf = cost => left + (cost - from) / (to - from) * (right - left);
    const yOf = share => floor - Math.sqrt(share / highest) * (floor - top);
    const grid = s('g', { class: 'grid' });
    for (let cost = from; cost <= to + step / 2; cost += step) {
      const x = at(xOf(cost));
      grid.append(s('line', { x1: x, x2: x, y1: top, y2: floor + 4 }), s('text', { x, y: floor + 17, 'text-anchor': 'middle' }, `${SWEEP.unit === 'dollars' ? '$' : ''}${axisText(cost)}`));
    }
    let last = Infinity;
    for (const share of SHARES.filter(share => share <= highest)) {
      const y = at(yOf(share));
      if (last - y < 18) continue;
      last = y;
      grid.append(s('line', { x1: left, x2: right, y1: y, y2: y, class: share ? null : 'floor' }), s('text', { x: left - 8, y: y + 4, 'text-anchor': 'end' }, percent(share)));
    }
    grid.append(s('text', { x: right, y: height - 8, 'text-anchor': 'end' }, this.costName),
      s('text', { x: left, y: height - 8 }, 'up: unserved load, on a square-root scale'));
    const parts = [grid];
    if (SWEEP.limit !== null) {
      const y = at(yOf(SWEEP.limit));
      parts.push(s('line', { x1: left, x2: right, y1: y, y2: y, class: 'limit' }), s('text', { x: right - 4, y: y - 5, 'text-anchor': 'end', class: 'limit' }, `limit ${percent(SWEEP.limit)}`));
    }
    const front = SWEEP.points.filter(point => point.front).sort((a, b) => a.cost - b.cost);
    const corners = front.map((point, i) => {
      const [x, y] = [at(xOf(point.cost)), at(yOf(point.summary.unservedShare))];
      return i ? `H${x}V${y}` : `M${x},${y}`;
    });
    parts.push(s('path', { class: 'front-line', d: corners.join('') }));
    this.places = SWEEP.points.map(point => [xOf(point.cost), yOf(point.summary.unservedShare)]);
    const rank = i => i === SWEEP.recommended ? 2 : SWEEP.points[i].front ? 1 : 0;
    const order = SWEEP.points.map((_, i) => i).sort((a, b) => rank(a) - rank(b));
    for (const i of order) parts.push(this.mark(['setting', 'front', 'recommended'][rank(i)], ...this.places[i].map(at)));
    this.ring = s('circle', { r: 10, class: 'ring', visibility: 'hidden' });
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...parts, this.ring);
  }

  /** The setting nearest to the pointer. */
  near(event) {
    const box = this.svg.getBoundingClientRect();
    const scale = this.svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const away = this.places.map(([px, py]) => Math.hypot(px - x, py - y));
    const index = away.indexOf(Math.min(...away));
    return away[index] < 40 ? index : null;
  }

  /** Rings a setting, in the chart and in the table. */
  point(index) {
    this.rows.forEach((row, i) => row.classList.toggle('pointed', i === index));
    this.ring.setAttribute('visibility', index === null ? 'hidden' : 'visible');
    this.told.textContent = index === null ? '' : this.figures(SWEEP.points[index]);
    if (index === null) return;
    this.ring.setAttribute('cx', this.places[index][0]);
    this.ring.setAttribute('cy', this.places[index][1]);
  }
}
