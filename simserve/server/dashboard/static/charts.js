// Line and bar charts on a canvas: drawn anew at each tick, sharp on any screen, in the colours of the page.

const GRID_LINES = 3;
const LEFT = 46;
const BOTTOM = 18;
const TOP = 8;
const GAP = 10;

/** `series` are arrays of numbers, or null where there is none, oldest first; `slots` of them fill the width.

`top` is the end of the scale where that is known, in `grid` parts, and `since` says what the left end is. */
export function drawLines(canvas, series, colours, { slots, since, top = scaleTop(series.flat()), fill = false, grid = GRID_LINES }) {
  const area = prepare(canvas);
  drawGrid(area, top, grid);
  drawEnds(area, since, "now");
  series.forEach((values, index) => {
    const colour = style(colours[index]);
    const x = (at) => area.right - ((values.length - 1 - at) / (slots - 1)) * (area.right - area.left);
    const y = (value) => area.bottom - (value / top) * (area.bottom - area.top);
    area.pen.beginPath();
    let pen = false;
    let first = 0;
    let last = 0;
    values.forEach((value, at) => {
      if (value === null) { pen = false; return; }
      if (pen) area.pen.lineTo(x(at), y(value));
      else { area.pen.moveTo(x(at), y(value)); first = x(at); }
      last = x(at);
      pen = true;
    });
    area.pen.strokeStyle = colour;
    area.pen.lineWidth = 1.8;
    area.pen.lineJoin = "round";
    area.pen.stroke();
    if (fill && pen) {
      area.pen.lineTo(last, area.bottom);
      area.pen.lineTo(first, area.bottom);
      area.pen.globalAlpha = 0.14;
      area.pen.fillStyle = colour;
      area.pen.fill();
      area.pen.globalAlpha = 1;
    }
  });
}

/** Rows of bars above each other, each with its own scale; `rows` hold a number for each of at most `slots` bars. */
export function drawBars(canvas, rows, colours, { slots, since }) {
  const whole = prepare(canvas);
  const height = (whole.bottom - whole.top - GAP * (rows.length - 1)) / rows.length;
  const width = (whole.right - whole.left) / slots;
  rows.forEach((values, index) => {
    const top = whole.top + index * (height + GAP);
    const area = { ...whole, top, bottom: top + height };
    const most = scaleTop(values);
    drawGrid(area, most, 1);
    area.pen.fillStyle = style(colours[index]);
    values.forEach((value, at) => {
      const x = area.right - (values.length - at) * width;
      const size = (value / most) * height;
      area.pen.fillRect(x, area.bottom - size, Math.max(1, width - 1), size);
    });
  });
  drawEnds(whole, since, "the last");
}

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, left: LEFT, right: width - 2, top: TOP, bottom: height - BOTTOM };
}

function drawGrid(area, top, lines) {
  const { pen } = area;
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (let line = 0; line <= lines; line += 1) {
    const y = Math.round(area.bottom - (line / lines) * (area.bottom - area.top)) + 0.5;
    pen.strokeStyle = style("--line");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(area.left, y);
    pen.lineTo(area.right, y);
    pen.stroke();
    pen.fillStyle = style("--soft");
    pen.fillText(short((top * line) / lines), area.left - 6, y);
  }
}

function drawEnds(area, left, right) {
  const { pen } = area;
  pen.fillStyle = style("--soft");
  pen.textBaseline = "top";
  pen.textAlign = "left";
  pen.fillText(left, area.left, area.bottom + 5);
  pen.textAlign = "right";
  pen.fillText(right, area.right, area.bottom + 5);
}

/** The next round number above all values whose thirds read well: 3, 6, 15, 30, 60, 150, ... */
function scaleTop(values) {
  const most = Math.max(...values.filter((value) => value !== null), 0);
  if (most <= 0) return 3;
  const power = 10 ** Math.floor(Math.log10(most / 3));
  return [3, 6, 15, 30].map((step) => step * power).find((top) => top >= most) ?? 60 * power;
}

export function short(value) {
  if (value >= 1e6) return `${trim(value / 1e6)}M`;
  if (value >= 1e4) return `${trim(value / 1e3)}k`;
  return trim(value);
}

function trim(value) {
  return String(Number(value.toPrecision(3)));
}

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
