"use strict";
(() => {
  // A text without marks and capitals, so that "naive" finds "Naïve".
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const collator = new Intl.Collator("en", { numeric: true });
  const count = (number) => number.toLocaleString("en-US");

  // Columns as the page holds them: cells are texts, or positions among the distinct texts.
  const opened = (column) => {
    const cells = column.cells === "" ? [] : column.cells.split(" ");
    const text = column.distinct ? (row) => column.distinct[cells[row]] : (row) => cells[row];
    return { kind: column.kind, name: column.name, cells, distinct: column.distinct, text };
  };

  // A number for each row by which to sort; NaN, which comes last, where a cell has none.
  const keys = (column) => {
    if (!column.distinct) return column.cells.map((cell) => parseFloat(cell.replace(/[<,]/g, "")));
    const values = column.distinct.map(Number);
    if (values.every((value, i) => Number.isFinite(value) && column.distinct[i].trim() !== "")) {
      return column.cells.map((cell) => values[cell]);
    }
    const order = column.distinct.map((_, i) => i);
    order.sort((a, b) => collator.compare(column.distinct[a], column.distinct[b]));
    const rank = [];
    order.forEach((i, place) => { rank[i] = place; });
    return column.cells.map((cell) => rank[cell]);
  };

  const enhance = (table) => {
    const root = document.querySelector(`.long[data-key="${table.key}"]`);
    const one = (name) => root.querySelector(name);
    const columns = table.columns.map(opened);
    const heads = [...root.querySelectorAll("thead th")];
    const body = one("tbody"), status = one(".status"), where = one(".where");
    const search = one(".search"), size = one(".size"), box = one(".box");
    const steps = { first: one(".first"), back: one(".back"), on: one(".on"), last: one(".last") };
    const amiss = search !== null;
    const known = [];  // keys of columns that were sorted by
    let sorted = -1, descending = false, page = 0, shown = [], found = null;

    const words = () => (search ? plain(search.value).split(/\s+/).filter(Boolean) : []);

    const arrange = () => {
      const wanted = words();
      const rows = [];
      if (wanted.length && !found) {
        const texts = columns.filter((each) => each.distinct);
        found = Array.from({ length: table.rows }, (_, row) => plain(texts.map((each) => each.text(row)).join("\n")));
      }
      for (let row = 0; row < table.rows; row += 1) {
        if (wanted.every((word) => found[row].includes(word))) rows.push(row);
      }
      if (sorted >= 0) {
        known[sorted] ??= keys(columns[sorted]);
        const key = known[sorted], sign = descending ? -1 : 1;
        rows.sort((a, b) => {
          const x = key[a], y = key[b];
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          return sign * (x - y);
        });
      }
      shown = rows;
      page = 0;
    };

    const cell = (column, row) => {
      const made = document.createElement(column.kind === "label" ? "th" : "td");
      const text = column.text(row);
      made.textContent = text;
      if (column.kind === "label") made.scope = "row";
      if (column.kind === "text") made.className = amiss && text !== "ok" ? "text amiss" : "text";
      if (column.kind !== "number") made.dir = "auto";
      return made;
    };

    const draw = () => {
      const length = Number(size.value), pages = Math.max(1, Math.ceil(shown.length / length));
      page = Math.min(Math.max(page, 0), pages - 1);
      const rows = shown.slice(page * length, (page + 1) * length);
      body.replaceChildren(...rows.map((row) => {
        const made = document.createElement("tr");
        made.append(...columns.map((column) => cell(column, row)));
        return made;
      }));
      const all = shown.length === table.rows ? count(table.rows) : `${count(shown.length)} found among ${count(table.rows)}`;
      status.textContent = rows.length
        ? `Rows ${count(page * length + 1)} to ${count(page * length + rows.length)} of ${all}`
        : `No row of ${count(table.rows)} has these words`;
      where.textContent = `Page ${count(page + 1)} of ${count(pages)}`;
      for (const [name, ends] of [["first", page === 0], ["back", page === 0], ["on", page === pages - 1], ["last", page === pages - 1]]) {
        steps[name].setAttribute("aria-disabled", String(ends));  // which keeps the focus, as disabled would not
      }
      one(".pages").hidden = shown.length <= Number(size.options[0].value);
    };

    const marks = { none: "", ascending: "▲", descending: "▼" };
    const mark = () => heads.forEach((head, i) => {
      const how = i !== sorted ? "none" : descending ? "descending" : "ascending";
      head.setAttribute("aria-sort", how);
      head.querySelector("span").textContent = marks[how];
    });

    heads.forEach((head, i) => {
      const button = document.createElement("button"), sign = document.createElement("span");
      button.type = "button";
      sign.setAttribute("aria-hidden", "true");
      button.append(head.textContent, sign);
      button.addEventListener("click", () => {
        if (sorted !== i) [sorted, descending] = [i, false];
        else if (!descending) descending = true;
        else [sorted, descending] = [-1, false];  // as fitted
        mark();
        arrange();
        draw();
      });
      head.replaceChildren(button);
    });
    const turn = (button, to) => button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") === "true") return;
      page = to();
      draw();
      box.scrollLeft = 0;
    });
    turn(steps.first, () => 0);
    turn(steps.back, () => page - 1);
    turn(steps.on, () => page + 1);
    turn(steps.last, () => Infinity);
    search?.addEventListener("input", () => { arrange(); draw(); });
    size.addEventListener("change", () => { page = 0; draw(); });
    one(".controls").addEventListener("submit", (event) => event.preventDefault());
    const short = !search && table.rows <= Number(size.options[0].value);
    one(".controls").hidden = short;
    status.hidden = short;
    mark();
    arrange();
    draw();
  };

  JSON.parse(document.getElementById("data").textContent).forEach(enhance);
})();
