// Mice, wheels, fingers and keys on the timeline.

const CLICK = 4;  // CSS pixels that a click may move

export function listen(timeline) {
  const {canvas, scroller} = timeline;
  const pointers = new Map();
  let gesture = null;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return {x: event.clientX - box.left, y: event.clientY - box.top};
  };
  const clamp = (ns) => Math.min(Math.max(ns, timeline.view.from), timeline.view.to);

  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    const at = place(event);
    pointers.set(event.pointerId, at);
    canvas.setPointerCapture(event.pointerId);
    hideTooltip();
    if (pointers.size === 2) {
      gesture = {kind: 'pinch', ...spread()};
    } else if (at.x >= timeline.gutter) {
      const selects = timeline.isRuler(at.y) || event.shiftKey;
      gesture = {
        kind: selects ? 'select' : 'pan',
        start: at,
        at,
        moved: false,
        ns: timeline.timeAt(at.x)
      };
    } else {
      gesture = {kind: 'none', start: at, at, moved: false};
    }
  });

  const spread = () => {
    const [a, b] = [...pointers.values()];
    return {distance: Math.max(10, Math.hypot(a.x - b.x, a.y - b.y)), middle: (a.x + b.x) / 2};
  };

  canvas.addEventListener('pointermove', (event) => {
    const at = place(event);
    if (!pointers.has(event.pointerId)) {
      hover(at);
      return;
    }
    pointers.set(event.pointerId, at);
    if (!gesture) return;
    if (gesture.kind === 'pinch' && pointers.size === 2) {
      const now = spread();
      timeline.pan((gesture.middle - now.middle) / timeline.lanesWidth);
      timeline.zoom(gesture.distance / now.distance, timeline.timeAt(now.middle));
      Object.assign(gesture, now);
      return;
    }
    if (Math.abs(at.x - (gesture.start?.x ?? at.x)) > CLICK) gesture.moved = true;
    if (!gesture.moved) return;
    if (gesture.kind === 'pan') {
      timeline.pan((gesture.at.x - at.x) / timeline.lanesWidth);
      gesture.at = at;
    } else if (gesture.kind === 'select') {
      timeline.select(gesture.ns, clamp(timeline.timeAt(at.x)));
    }
  });

  const end = (event) => {
    pointers.delete(event.pointerId);
    if (gesture && gesture.kind !== 'pinch' && !gesture.moved && event.type === 'pointerup')
      click(place(event));
    const [left] = pointers.values();
    // The finger that is left after a pinch moves the timeline; to lift it is no tap.
    gesture = gesture?.kind === 'pinch' && pointers.size === 1 ?
        {kind: 'pan', start: left, at: left, moved: true} :
        null;
  };
  canvas.addEventListener('pointerup', end);
  canvas.addEventListener('pointercancel', end);
  canvas.addEventListener('pointerleave', () => hideTooltip());

  const spanAt = ({x, y}) => {
    const row = timeline.rowAt(y);
    if (!row) return null;
    const span = row.at(timeline.timeAt(Math.max(x, timeline.gutter)));
    return span >= 0 && span < row.count ? {row, span} : null;
  };
  function click(at) {
    if (timeline.isRuler(at.y)) {
      timeline.select(0, 0);
      return;
    }
    const found = spanAt(at);
    timeline.choose(found?.row, found?.span ?? -1);
  }
  canvas.addEventListener('dblclick', (event) => {
    const found = spanAt(place(event));
    if (found)
      timeline.focusOn(found.row.starts[found.span], found.row.starts[found.span + 1], found.row);
  });

  function hideTooltip() {
    timeline.tooltip.hidden = true;
  }
  function hover(at) {
    const found = at.x >= timeline.gutter ? spanAt(at) : null;
    const {tooltip} = timeline;
    if (!found) {
      hideTooltip();
      return;
    }
    tooltip.replaceChildren(...timeline.describe(found.row, found.span).map((line) => {
      const p = document.createElement('p');
      p.textContent = line;
      return p;
    }));
    tooltip.hidden = false;
    const box = scroller.getBoundingClientRect();
    const width = tooltip.offsetWidth, height = tooltip.offsetHeight;
    const left = Math.min(at.x + 14, box.width - width - 4);
    const below = at.y + 18, above = at.y - height - 12;
    tooltip.style.left = `${Math.max(4, left)}px`;
    tooltip.style.top = `${box.top + below + height > innerHeight ? above : below}px`;
  }

  canvas.addEventListener('wheel', (event) => {
    const {x} = place(event);
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      timeline.pan(sideways * lines / timeline.lanesWidth);
    } else if (event.ctrlKey || event.metaKey || document.activeElement === scroller) {
      event.preventDefault();
      timeline.zoom(
          Math.exp(Math.min(Math.max(event.deltaY * lines, -200), 200) * 0.003),
          timeline.timeAt(Math.max(x, timeline.gutter)));
    }
  }, {passive: false});

  scroller.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!key(timeline, event.key, event.shiftKey)) return;
    event.preventDefault();
    hideTooltip();
  });
}

function step(timeline, by) {
  const {chosen} = timeline;
  if (!chosen) return chooseLane(timeline, 0);
  const span = Math.min(Math.max(chosen.span + by, 0), chosen.row.count - 1);
  timeline.choose(chosen.row, span);
  const from = chosen.row.starts[span], to = chosen.row.starts[span + 1];
  const {view} = timeline;
  if (from < view.from || to > view.to) {
    const middle = (from + to) / 2, half = Math.max((view.to - view.from) / 2, (to - from) * 0.75);
    timeline.setView(middle - half, middle + half);
  }
  return true;
}

function chooseLane(timeline, by) {
  const {rows, chosen, view} = timeline;
  const index = chosen ? rows.indexOf(chosen.row) + by : 0;
  const row = rows[Math.min(Math.max(index, 0), rows.length - 1)];
  if (!row) return false;
  const middle = chosen ?
      (chosen.row.starts[chosen.span] + chosen.row.starts[chosen.span + 1]) / 2 :
      (view.from + view.to) / 2;
  const at = Math.min(Math.max(middle, view.from, row.first), row.last - 1);
  timeline.choose(row, row.at(at));
  return true;
}

function extend(timeline, share) {
  const {view, selection, chosen} = timeline;
  const start =
      selection?.from ?? (chosen ? chosen.row.starts[chosen.span] : (view.from + view.to) / 2);
  const begin = Math.min(Math.max(start, view.from), view.to);
  const end = (selection?.to ?? begin) + share * (view.to - view.from);
  timeline.select(begin, Math.max(end, begin + (view.to - view.from) / 1000));
  return true;
}

// False: the key is none of the timeline's.
function key(timeline, name, shift) {
  const {chosen} = timeline;
  switch (name.length === 1 ? name.toLowerCase() : name) {
    case 'ArrowLeft':
      return shift ? extend(timeline, -0.05) : (timeline.pan(-0.15), true);
    case 'ArrowRight':
      return shift ? extend(timeline, 0.05) : (timeline.pan(0.15), true);
    case 'ArrowUp':
      return chooseLane(timeline, -1);
    case 'ArrowDown':
      return chooseLane(timeline, 1);
    case 'a':
      return timeline.pan(-0.15), true;
    case 'd':
      return timeline.pan(0.15), true;
    case 'w':
    case '+':
    case '=':
      return timeline.zoom(0.7, centre(timeline)), true;
    case 's':
    case '-':
    case '_':
      return timeline.zoom(1 / 0.7, centre(timeline)), true;
    case '0':
    case 'Home':
      return timeline.showAll(), true;
    case ',':
    case '<':
      return step(timeline, -1);
    case '.':
    case '>':
      return step(timeline, 1);
    case 'Enter':
      if (!chosen) return false;
      timeline.focusOn(
          chosen.row.starts[chosen.span], chosen.row.starts[chosen.span + 1], chosen.row);
      return true;
    case 'm':
      if (!chosen) return false;
      timeline.select(chosen.row.starts[chosen.span], chosen.row.starts[chosen.span + 1]);
      return true;
    case 'v':
      timeline.select(timeline.view.from, timeline.view.to);
      return true;
    case 'Escape':
      if (!chosen && !timeline.selection) return false;
      timeline.select(0, 0);
      timeline.choose(null, -1);
      return true;
    default:
      return false;
  }
}

// What zooming by keys keeps in its place: the chosen span, where it is in sight.
function centre(timeline) {
  const {chosen, view} = timeline;
  const middle = (view.from + view.to) / 2;
  if (!chosen) return middle;
  const at = (chosen.row.starts[chosen.span] + chosen.row.starts[chosen.span + 1]) / 2;
  return at >= view.from && at <= view.to ? at : middle;
}
