// What happened and why: a list that can be filtered, each entry a place in the charts.

const EVENTS = WORLDS.flatMap(world => world.events).sort((a, b) => a.at - b.at);
EVENTS.forEach((event, i) => (event.number = i));
/** Rows that are shown before one has to ask for more. */
const ROWS = 200;

class EventList {
  /** @param view what is shown: { window, zone }; go(event) moves the charts */
  constructor(section, view) {
    Object.assign(this, { section, view, rows: ROWS });
    this.off = new Set();
    if (!EVENTS.length) {
      section.append(h('p', { class: 'empty' }, 'Nothing happened.'));
      return;
    }
    this.text = h('input', { type: 'search', placeholder: 'Object, reason or text', 'aria-label': 'Filter events', input: () => this.changed() });
    this.near = h('input', { type: 'checkbox', change: () => this.changed() });
    this.warnings = h('input', { type: 'checkbox', change: () => this.changed() });
    const counts = new Map();
    for (const { reason } of EVENTS) counts.set(reason, (counts.get(reason) ?? 0) + 1);
    const reasons = [...counts].sort((a, b) => b[1] - a[1]).map(([reason, count]) =>
      h('button', { type: 'button', class: 'chip', 'aria-pressed': 'true', click: event => this.toggle(reason, event.currentTarget) },
        reason, h('span', { class: 'count' }, WHOLE_NUMBER.format(count))));
    this.count = h('p', { class: 'counted', role: 'status' });
    this.body = h('tbody');
    this.more = h('button', { type: 'button', class: 'no-print', click: () => { this.rows += ROWS; this.draw(); } });
    section.append(
      h('div', { class: 'filters no-print' }, this.text, h('label', {}, this.near, 'only in view'), h('label', {}, this.warnings, 'only warnings')),
      h('div', { class: 'chips no-print', role: 'group', 'aria-label': 'Reasons' }, ...reasons),
      this.count,
      h('table', { class: 'events' },
        h('thead', {}, h('tr', {}, ...['Time', 'Object', 'Reason', 'Message'].map(name => h('th', { scope: 'col' }, name)))), this.body),
      this.more);
    this.draw();
  }

  toggle(reason, chip) {
    const off = !this.off.delete(reason);
    if (off) this.off.add(reason);
    chip.setAttribute('aria-pressed', !off);
    this.changed();
  }

  changed() {
    this.rows = ROWS;
    this.draw();
    this.view.filtered();
  }

  /** The events that the filters leave. */
  shown() {
    if (!EVENTS.length) return EVENTS;
    const text = this.text.value.trim().toLowerCase();
    const { from, to } = this.view.window;
    return EVENTS.filter(event => !this.off.has(event.reason)
      && (!this.warnings.checked || event.kind === 'Warning')
      && (!this.near.checked || (event.at >= from && event.at <= to))
      && (!text || `${event.object} ${event.reason} ${event.message}`.toLowerCase().includes(text)));
  }

  /** After the charts have moved. */
  moved() {
    if (this.near?.checked) this.draw();
  }

  draw() {
    if (!EVENTS.length) return;
    const shown = this.shown();
    const listed = shown.slice(0, this.rows);
    this.count.textContent = shown.length === EVENTS.length
      ? `${WHOLE_NUMBER.format(EVENTS.length)} events`
      : `${WHOLE_NUMBER.format(shown.length)} of ${WHOLE_NUMBER.format(EVENTS.length)} events`;
    this.body.replaceChildren(...listed.map(event => this.row(event)));
    const left = shown.length - listed.length;
    this.more.hidden = left === 0;
    this.more.textContent = `Show ${Math.min(left, ROWS)} more of ${WHOLE_NUMBER.format(left)}`;
  }

  row(event) {
    const warning = event.kind === 'Warning';
    const time = h('button', { type: 'button', class: 'link', title: `${bothTimes(event.at).utc} UTC: show it in the charts`, click: () => this.view.go(event) },
      TIMES[this.view.zone].row.format(event.at));
    const row = h('tr', { 'data-event': event.number, 'aria-current': this.view.chosen === event ? 'true' : null },
      h('td', { class: 'when' }, time),
      h('td', { class: 'object' }, worldSwatch(WORLDS[event.world]), event.object),
      h('td', { class: 'reason' }, h('span', { class: warning ? 'tag warning' : 'tag' }, warning ? '▲ ' : '', event.reason)),
      h('td', { class: 'message' }, event.message));
    return row;
  }
}
