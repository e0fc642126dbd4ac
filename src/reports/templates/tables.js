// Tables of the macro `table` with groups: sorted by a click on a column, filtered by text and by group.
for (const box of document.querySelectorAll('.filterable')) {
  const body = box.querySelector('tbody'), rows = [...body.rows], heads = [...box.querySelectorAll('th')];
  const sortValue = (row, column) => {
    const cell = row.cells[column], text = (cell.dataset.sort ?? cell.textContent).trim();
    const number = parseFloat(text.replace(/,/g, ''));
    return /^[-+]?[\d.]/.test(text) && !isNaN(number) ? number : text;
  };
  const sort = (head, column) => {
    const ascending = head.getAttribute('aria-sort') === 'descending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
    rows.sort((first, second) => {
      const a = sortValue(first, column), b = sortValue(second, column);
      // Numbers rank above texts such as "-".
      const order = typeof a !== typeof b ? (typeof a === 'number' ? 1 : -1) : a < b ? -1 : a > b ? 1 : 0;
      return ascending ? order : -order;
    });
    body.append(...rows);
  };
  heads.forEach((head, column) => {
    if (!head.textContent) return;
    head.dataset.column = column;
    head.tabIndex = 0;
    head.onclick = () => sort(head, column);
    head.onkeydown = event => {
      if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); sort(head, column); }
    };
  });
  const text = box.querySelector('input'), group = box.querySelector('select'), output = box.querySelector('output');
  const filter = () => {
    const query = text.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      const inGroup = !group || !group.value || row.dataset.group === group.value;
      row.hidden = !(inGroup && row.textContent.toLowerCase().includes(query));
      count += !row.hidden;
    }
    output.textContent = count === rows.length ? '' : `${count} of ${rows.length}`;
  };
  text.oninput = filter;
  if (group) group.onchange = filter;
}
