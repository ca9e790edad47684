// From values to pixels: ticks, and paths with no more points than the screen has.

/** Round values from zero to `top` and beyond, about `count` of them; the last is the axis' end. */
function valueTicks(top, count, whole) {
  const raw = Math.max(top, 1e-12) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 2.5, 5, 10].map(n => n * power).find(n => n >= raw * (1 - 1e-9));
  if (whole) step = Math.max(1, Math.ceil(step));
  const ticks = [];
  for (let i = 0; ; i++) {
    ticks.push(i * step);
    if (i * step >= top * (1 - 1e-9) && i > 0) return ticks;
  }
}

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const TIME_STEPS = [1, 5, 15, 30].map(n => n * SECOND)
  .concat([1, 2, 5, 10, 15, 30].map(n => n * MINUTE), [1, 2, 3, 6, 12].map(n => n * HOUR), [1, 2, 7, 14, 28, 91, 182, 364].map(n => n * DAY));

/** Round times between `from` and `to` on the clock of `zone`, with their labels. */
function timeTicks(from, to, count, zone) {
  const step = TIME_STEPS.find(step => (to - from) / step <= count) ?? TIME_STEPS.at(-1);
  const style = TIMES[zone];
  const ticks = [];
  let offset = zoneOffset(from, zone);
  for (let time = Math.ceil((from + offset) / step) * step - offset; time <= to; time += step) {
    // Where the clock is changed, the ticks follow it.
    const now = zoneOffset(time, zone);
    if (now !== offset && step >= HOUR) {
      time += offset - now;
      offset = now;
    }
    if (time < from || time > to) continue;
    const midnight = (time + offset) % DAY === 0;
    const label = midnight ? style.day.format(time) : (step < MINUTE ? style.second : style.minute).format(time);
    ticks.push({ time, label, midnight });
  }
  return ticks;
}

/** The points of `world` from just before the window to just behind it. */
function pointsWithin(world, window) {
  const first = Math.floor((window.from - world.start) / world.step);
  const last = Math.ceil((window.to - world.start) / world.step);
  return [Math.max(0, first), Math.min(world.points - 1, last)];
}

/**
 * Runs of points to draw, each a list of [x, value]. Where several points share a pixel, its first, least, most and last
 * are kept: no peak is lost, and a week costs no more than an hour. `steps`: a value holds until the next. `sparse`: where there
 * is nothing but zero, nothing is drawn.
 */
function runs(values, world, window, xOf, steps, sparse) {
  const [first, last] = pointsWithin(world, window);
  const out = [];
  let run = [];
  const close = () => {
    if (run.length) out.push(run);
    run = [];
  };
  const put = (x, value) => {
    if (steps && run.length) {
      const before = run.at(-1)[1];
      if (before === value && run.length > 1 && run.at(-2)[1] === value) run.pop();
      if (before !== value) run.push([x, before]);
    }
    run.push([x, value]);
  };
  const dense = (last - first) / Math.max(1, xOf(window.to) - xOf(window.from)) > 2;
  for (let i = first; i <= last;) {
    const x = xOf(world.start + i * world.step);
    if (Number.isNaN(values[i]) || (sparse && !dense && values[i] === 0)) {
      close();
      i++;
      continue;
    }
    if (!dense) {
      put(x, values[i++]);
      continue;
    }
    const column = Math.floor(x);
    let least = values[i], most = values[i], end = values[i];
    const begin = values[i];
    for (; i <= last && !Number.isNaN(values[i]) && Math.floor(xOf(world.start + i * world.step)) === column; i++) {
      end = values[i];
      if (end < least) least = end;
      if (end > most) most = end;
    }
    if (sparse && most === 0) {
      close();
      continue;
    }
    run.push([column, begin]);
    if (least !== begin || most !== begin) run.push([column, least], [column, most], [column, end]);
    // The step from this pixel to the next one.
    if (steps) run.push([column + 1, end]);
  }
  close();
  // A value holds for its step: the last one, and one that stands alone, have a length too.
  if (steps && !dense) {
    const width = xOf(world.start + world.step) - xOf(world.start);
    for (const run of out) run.push([run.at(-1)[0] + width, run.at(-1)[1]]);
  }
  return out;
}

const at = n => Math.round(n * 10) / 10;

function linePath(runs, yOf) {
  return runs.map(run => 'M' + run.map(([x, value]) => `${at(x)},${at(yOf(value))}`).join('L')).join('');
}

function areaPath(runs, yOf) {
  const floor = at(yOf(0));
  return runs.map(run => `M${at(run[0][0])},${floor}L`
    + run.map(([x, value]) => `${at(x)},${at(yOf(value))}`).join('L')
    + `L${at(run.at(-1)[0])},${floor}Z`).join('');
}

/** The most of `values` within the window, zero if there is none. */
function mostWithin(values, world, window) {
  const [first, last] = pointsWithin(world, window);
  let most = 0;
  for (let i = first; i <= last; i++) if (values[i] > most) most = values[i];
  return most;
}
