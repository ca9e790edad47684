// The one time window that all charts share, and what moves it: pointer, wheel, fingers, keys.

/** The window is never shorter than this many points. */
const LEAST_POINTS = 4;
/** A drag that is shorter is a click, in pixels. */
const CLICK = 4;

class View {
  constructor() {
    this.window = { ...WHOLE };
    this.zone = 'local';
    this.hidden = new Set();
    this.cursor = null;
    this.chosen = null;
    this.plots = [];
    this.fingers = new Map();
  }

  /** What is drawn anew when the window moves; set by main.js: redraw(), pointed(time), filtered(), scrollTo(). */
  get whole() {
    return this.window.from <= WHOLE.from && this.window.to >= WHOLE.to;
  }

  setWindow(from, to) {
    const step = Math.min(...WORLDS.map(world => world.step));
    const span = Math.min(Math.max(to - from, LEAST_POINTS * step), WHOLE.to - WHOLE.from);
    const start = Math.min(Math.max(span === to - from ? from : (from + to - span) / 2, WHOLE.from), WHOLE.to - span);
    this.window = { from: start, to: start + span };
    this.redraw();
  }

  reset() {
    this.setWindow(WHOLE.from, WHOLE.to);
  }

  /** Makes the window `factor` times as long, `time` staying where it is. */
  zoom(factor, time = (this.window.from + this.window.to) / 2) {
    const { from, to } = this.window;
    this.setWindow(time - (time - from) * factor, time + (to - time) * factor);
  }

  /** Moves the window by a share of its length. */
  pan(share) {
    const { from, to } = this.window;
    const by = (to - from) * share;
    this.setWindow(from + by, to + by);
  }

  point(time, spoken = false) {
    this.cursor = time;
    for (const plot of this.plots) plot.point(time);
    this.pointed(time, spoken);
  }

  toggled(key) {
    if (!this.hidden.delete(key)) this.hidden.add(key);
    for (const button of document.querySelectorAll('.legend button.series')) button.blur();
    this.rebuild();
  }

  /** Moves the charts to an event. */
  go(event) {
    this.chosen = event;
    const { from, to } = this.window;
    const step = Math.min(...WORLDS.map(world => world.step));
    const span = Math.min(to - from, Math.max((WHOLE.to - WHOLE.from) / 12, 60 * step));
    this.setWindow(event.at - span / 2, event.at + span / 2);
    this.point(event.at, true);
    this.scrollTo();
  }

  /** Lets the pointer, fingers and keys move the window over `plot`. */
  listen(plot) {
    const svg = plot.svg;
    const timeOf = event => {
      const box = svg.getBoundingClientRect();
      return plot.timeAt((event.clientX - box.left) * svg.viewBox.baseVal.width / box.width);
    };
    const within = time => Math.min(Math.max(time, this.window.from), this.window.to);
    let drag = null;
    svg.addEventListener('pointerdown', event => {
      if (event.button !== 0) return;
      if (event.pointerType === 'touch') this.finger(event, timeOf(event));
      else drag = { x: event.clientX, time: within(timeOf(event)), pan: event.shiftKey, window: this.window };
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener('pointermove', event => {
      const time = within(timeOf(event));
      if (this.fingers.has(event.pointerId)) return this.fingerMoved(event, timeOf(event), plot);
      if (drag?.pan) {
        const by = (event.clientX - drag.x) / plot.inner.width * (drag.window.to - drag.window.from);
        this.setWindow(drag.window.from - by, drag.window.to - by);
      } else if (drag && Math.abs(event.clientX - drag.x) > CLICK) {
        this.plots.forEach(other => other.select([drag.time, time]));
      }
      this.point(time);
    });
    const lift = event => {
      this.fingers.delete(event.pointerId);
      this.plots.forEach(other => other.select(null));
      if (drag && !drag.pan && event.type === 'pointerup' && Math.abs(event.clientX - drag.x) > CLICK) {
        const time = within(timeOf(event));
        this.setWindow(Math.min(drag.time, time), Math.max(drag.time, time));
      }
      drag = null;
    };
    svg.addEventListener('pointerup', lift);
    svg.addEventListener('pointercancel', lift);
    svg.addEventListener('pointerleave', event => {
      if (event.pointerType !== 'touch') this.point(this.chosen?.at ?? null);
    });
    svg.addEventListener('dblclick', () => this.reset());
    svg.addEventListener('wheel', event => {
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        if (this.whole) return;
        event.preventDefault();
        return this.pan(event.deltaX / plot.inner.width);
      }
      // The whole is in view already: the wheel scrolls the page on.
      if (event.deltaY > 0 && this.whole) return;
      event.preventDefault();
      this.zoom(Math.exp(Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 200) * 0.002), within(timeOf(event)));
    }, { passive: false });
  }

  /** A finger comes down: one moves the crosshair and the window, two stretch it. */
  finger(event, time) {
    this.fingers.set(event.pointerId, { x: event.clientX });
    this.stretch = { window: this.window, xs: [...this.fingers.values()].map(finger => finger.x) };
    this.point(time);
  }

  fingerMoved(event, time, plot) {
    this.fingers.get(event.pointerId).x = event.clientX;
    const { window, xs: before } = this.stretch;
    const xs = [...this.fingers.values()].map(finger => finger.x);
    const span = window.to - window.from;
    if (xs.length >= 2 && before.length >= 2) {
      const factor = Math.abs(before[0] - before[1]) / Math.max(10, Math.abs(xs[0] - xs[1]));
      const middle = window.from + span / 2;
      this.setWindow(middle - span / 2 * factor, middle + span / 2 * factor);
    } else if (xs.length === 1 && before.length === 1 && !this.whole) {
      const by = (xs[0] - before[0]) / plot.inner.width * span;
      this.setWindow(window.from - by, window.to - by);
    }
    this.point(Math.min(Math.max(time, this.window.from), this.window.to));
  }

  /** A key over the charts; whether it meant something. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const { from, to } = this.window;
    const step = WORLDS[0].step;
    const move = by => {
      const time = Math.min(Math.max((this.cursor ?? (from + to) / 2) + by, WHOLE.from), WHOLE.to);
      if (time < from || time > to) this.setWindow(from + by, to + by);
      this.point(time, true);
    };
    const small = Math.max(step, Math.round((to - from) / 200 / step) * step);
    const next = way => {
      const now = this.cursor ?? (way > 0 ? from - 1 : to + 1);
      const shown = this.events();
      const event = way > 0 ? shown.find(event => event.at > now) : shown.findLast(event => event.at < now);
      if (event) this.go(event);
    };
    const does = {
      ArrowLeft: () => move(event.shiftKey ? -10 * small : -small),
      ArrowRight: () => move(event.shiftKey ? 10 * small : small),
      PageUp: () => this.pan(-0.5),
      PageDown: () => this.pan(0.5),
      Home: () => this.setWindow(WHOLE.from, WHOLE.from + to - from),
      End: () => this.setWindow(WHOLE.to - (to - from), WHOLE.to),
      '+': () => this.zoom(0.5, this.cursor ?? undefined),
      '=': () => this.zoom(0.5, this.cursor ?? undefined),
      '-': () => this.zoom(2, this.cursor ?? undefined),
      0: () => this.reset(),
      Escape: () => {
        this.chosen = null;
        this.point(null);
        this.reset();
      },
      n: () => next(1),
      p: () => next(-1),
    }[event.key];
    does?.();
    return Boolean(does);
  }
}

/** The whole time as a strip, with the window on it and the events below: always in sight. */
class Overview {
  constructor(view) {
    this.view = view;
    this.height = 46;
    this.svg = s('svg', { class: 'overview', height: this.height, role: 'img', 'aria-label': 'The whole time, the part that is in view, and events' });
    let drag = null;
    const timeOf = event => {
      const box = this.svg.getBoundingClientRect();
      return WHOLE.from + (event.clientX - box.left) / box.width * (WHOLE.to - WHOLE.from);
    };
    this.svg.addEventListener('pointerdown', event => {
      const time = timeOf(event);
      const { from, to } = view.window;
      drag = { x: event.clientX, time, window: view.window, pan: !view.whole && time >= from && time <= to };
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener('pointermove', event => {
      if (!drag) return this.hint(event);
      const time = timeOf(event);
      if (drag.pan) view.setWindow(drag.window.from + time - drag.time, drag.window.to + time - drag.time);
      else if (Math.abs(event.clientX - drag.x) > CLICK) view.setWindow(Math.min(time, drag.time), Math.max(time, drag.time));
    });
    this.svg.addEventListener('pointerup', event => {
      if (drag && Math.abs(event.clientX - drag.x) <= CLICK) {
        const near = this.near(event);
        if (near) view.go(near);
      }
      drag = null;
    });
    this.svg.addEventListener('pointercancel', () => (drag = null));
    this.svg.addEventListener('dblclick', () => view.reset());
  }

  /** The event under the pointer. */
  near(event) {
    const box = this.svg.getBoundingClientRect();
    if (event.clientY - box.top < this.height - 18) return undefined;
    const x = (event.clientX - box.left) * this.width / box.width;
    let best;
    for (const mark of this.marks ?? []) {
      const away = Math.abs(this.xOf(mark.at) - x);
      if (away < 7 && (!best || away < best.away)) best = { away, mark };
    }
    return best?.mark;
  }

  hint(pointer) {
    const event = this.near(pointer);
    this.svg.style.cursor = event ? 'pointer' : '';
    this.title.textContent = event ? `${bothTimes(event.at).utc} UTC\n${event.object}\n${event.reason}: ${event.message}` : '';
  }

  xOf(time) {
    return (time - WHOLE.from) / (WHOLE.to - WHOLE.from) * this.width;
  }

  /** @param series what the strip shows, @param marks the events */
  draw(width, series, marks) {
    this.width = width;
    this.marks = marks;
    const xOf = this.xOf.bind(this);
    const floor = this.height - 16;
    this.title = s('title');
    const parts = [this.title, s('rect', { class: 'strip', width, height: floor })];
    if (series) {
      const top = mostWithin(series.values, series.world, WHOLE) * 1.1 || 1;
      const lines = runs(series.values, series.world, WHOLE, xOf, false);
      parts.push(s('path', { class: 'history', d: areaPath(lines, value => floor - value / top * (floor - 4)) }));
    }
    const [left, right] = [xOf(this.view.window.from), xOf(this.view.window.to)];
    parts.push(s('rect', { class: 'outside', width: at(Math.max(0, left)), height: floor }),
      s('rect', { class: 'outside', x: at(right), width: at(Math.max(0, width - right)), height: floor }),
      s('rect', { class: 'window', x: at(left) + 0.5, y: 0.5, width: at(Math.max(2, right - left - 1)), height: floor - 1, rx: 2 }));
    // The more events in a few pixels, the higher the bar; each place with a warning has a triangle, on top.
    const [bars, warnings] = [new Map(), new Set()];
    for (const mark of marks) {
      const x = Math.round(xOf(mark.at) / 3) * 3;
      bars.set(x, (bars.get(x) ?? 0) + 1);
      if (mark.kind === 'Warning') warnings.add(x);
    }
    const most = Math.max(1, ...bars.values());
    const high = count => at(4 + 8 * Math.log1p(count - 1) / Math.max(1, Math.log(most)));
    parts.push(s('path', { class: 'mark', d: [...bars].map(([x, count]) => `M${x},${this.height}v-${high(count)}`).join('') }),
      s('path', { class: 'mark warning', d: [...warnings].map(x => `M${x},${floor + 3}l5,10h-10Z`).join('') }));
    const chosen = this.view.chosen;
    if (chosen) parts.push(s('path', { class: 'mark chosen', d: `M${at(xOf(chosen.at))},0v${this.height}` }));
    this.svg.setAttribute('viewBox', `0 0 ${width} ${this.height}`);
    this.svg.replaceChildren(...parts);
  }
}
