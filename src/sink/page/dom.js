// Elements. Names come from the traced programs: they only ever become text.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on'))
      element.addEventListener(name.slice(2), value);
    else
      element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

export function fill(id, ...children) {
  byId(id).replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

// Of a table that is wider than the screen it stays where it is, as the names of the rows do.
export function caption(text) {
  return el('caption', {}, el('span', {}, text));
}

// `columns`: [title, right-aligned]; each row has as many texts or elements, the first its heading.
export function table(title, columns, rows, groups = null) {
  const head =
      columns.map(([name, right]) => el('th', {scope: 'col', class: right ? 'right' : null}, name));
  const groupRow = groups &&
      el('tr', {},
         ...groups.map(
             ([name, span]) => name === '' ? el('td', {colspan: span}) :
                                             el('th', {scope: 'colgroup', colspan: span}, name)));
  return el(
      'div', {class: 'table', tabindex: '0', role: 'region', 'aria-label': title},
      el('table', {}, caption(title), el('thead', {}, groupRow, el('tr', {}, ...head)),
         el('tbody', {},
            ...rows.map(
                (row) =>
                    el('tr', {},
                       ...row.map(
                           (content, i) => i === 0 ?
                               el('th', {scope: 'row'}, content) :
                               el('td', {class: columns[i][1] ? 'right' : null}, content)))))));
}

// A bar of parts, as wide as their shares; what it says is in words beside it.
export function bar(parts, whole, label) {
  const element = el('div', {class: 'bar', role: 'img', 'aria-label': label});
  for (const {name, ns} of parts) {
    if (!(ns > 0)) continue;
    const part = el('span', {class: name});
    part.style.width = `${ns / whole * 100}%`;
    element.append(part);
  }
  return element;
}
