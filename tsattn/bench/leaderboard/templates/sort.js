document.querySelectorAll("table.sortable th button").forEach((button) => {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const place = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    const numbers = [...body.rows].some((row) => "sort" in row.cells[place].dataset);
    const key = (row) => {
      const cell = row.cells[place];
      if (cell.textContent.trim() === "") return null;
      if ("sort" in cell.dataset) return Number(cell.dataset.sort);
      return numbers ? null : cell.textContent;
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const found = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return down ? -found : found;
    };
    head.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    [...body.rows].sort(order).forEach((row) => body.append(row));
  });
});
