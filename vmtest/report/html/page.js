"use strict";
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const WORDS = {
    P: ["passed", "good", "\u2713"], F: ["failed", "bad", "F"], E: ["error", "bad", "E"],
    X: ["passed, though known to fail", "bad", "X"], L: ["lost", "bad", "L"],
    "-": ["not run", "quiet", "-"], c: ["collected", "quiet", "c"], x: ["failed, as known", "warn", "x"],
    s: ["skipped", "warn", "s"], n: ["not applicable", "quiet", "n"], f: ["flaky", "warn", "f"],
    M: ["failed on some kernels", "bad", "\u00b1"],
    " ": ["not there", "quiet", ""],
  };
  const PAGE = 150;
  // The lines of a text that say what went wrong: a box opens at the first of them.
  const ERROR = /^(?:E(?: |$)|.{0,60}\b(?:BUG|Oops|Kernel panic)\b)/;
  const KERNELS = D.kernels.map((kernel) => [kernel.name, kernel.exact + " " + kernel.status]);

  // Everything that came from a guest gets into the page as text, here and nowhere else.
  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined && text !== "") made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function box(text) {
    const pre = element("pre");
    pre.tabIndex = 0;
    let wrong = false;
    let part = "";
    const add = () => {
      if (part) pre.append(wrong ? element("b", part, "e") : part);
      part = "";
    };
    for (const line of text.split(/(?<=\n)/)) {
      if (ERROR.test(line) !== wrong) {
        add();
        wrong = !wrong;
      }
      part += line;
    }
    add();
    return pre;
  }
  // Scrolls a box to its error, with the line above it on top and whole rows only.  A reader who
  // scrolled a box keeps the place.
  const moved = new WeakSet();
  function topOf(place, pre) {
    const rect = place.getClientRects()[0];
    return rect && (rect.top + rect.bottom) / 2 - pre.getBoundingClientRect().top - pre.clientTop + pre.scrollTop;
  }
  function toError(pre) {
    const error = pre.querySelector(".e");
    if (!error || !pre.clientHeight || moved.has(pre)) return;
    const style = getComputedStyle(pre);
    const height = parseFloat(style.lineHeight);
    const padding = parseFloat(style.paddingTop);
    const row = (place) => Math.floor((topOf(place, pre) - padding) / height);
    const rows = Math.floor((pre.clientHeight + 1) / height);
    const last = Math.round((pre.scrollHeight - 2 * padding) / height) - rows;
    const at = row(error);
    let above = at;
    const before = error.previousSibling;
    if (before) {
      const line = document.createRange();
      line.setStart(before, before.data.lastIndexOf("\n", before.length - 2) + 1);
      line.setEnd(before, before.length);
      above = Math.max(line.getClientRects().length ? row(line) : at - 1, at - Math.floor(rows / 2));
    }
    const bottom = error.getBoundingClientRect().bottom - pre.getBoundingClientRect().top + pre.scrollTop;
    const first = bottom <= pre.clientHeight ? 0 : Math.max(0, Math.min(above, last));
    pre.scrollTop = first ? padding + first * height : 0;
  }
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => toError(entry.target)));
  function watch(pre) {
    sizes.observe(pre);
    toError(pre);
  }
  for (const type of ["wheel", "touchmove", "pointerdown", "keydown"]) {
    document.addEventListener(type, (event) => {
      const pre = event.target.closest && event.target.closest("pre");
      if (pre && event.key !== "Tab") moved.add(pre);
    }, { passive: true });
  }

  // --- what the URL remembers -------------------------------------------------
  function read() {
    const hash = location.hash;
    return new URLSearchParams(hash.startsWith("#?") ? hash.slice(2) : "");
  }
  function write(changes) {
    const state = read();
    for (const [key, value] of Object.entries(changes)) {
      if (value) state.set(key, value); else state.delete(key);
    }
    const text = state.toString();
    history.replaceState(null, "", text ? "#?" + text : location.pathname + location.search);
  }

  // --- one table: a header, rows in pages, cells that arrows move between ------
  class Heat {
    constructor(place, more, status, noun, columns = KERNELS) {
      this.place = place; this.more = more; this.status = status; this.noun = noun;
      this.rows = []; this.shown = 0;
      this.table = element("table", "", columns.length > 8 ? "heat many" : "heat");
      const line = element("tr");
      line.append(element("th", noun));
      for (const [name, title] of columns) {
        const head = element("th", name);
        head.scope = "col";
        head.title = title;
        line.append(head);
      }
      const head = element("thead");
      head.append(line);
      this.body = element("tbody");
      this.table.append(head, this.body);
      place.append(this.table);
      more.addEventListener("click", () => this.add(PAGE * 4));
      this.table.addEventListener("keydown", (event) => this.move(event));
      this.table.addEventListener("click", (event) => {
        const cell = event.target.closest("td.go");
        if (cell) this.open(cell);
      });
    }
    draw(rows, total) {
      this.rows = rows; this.shown = 0;
      this.body.replaceChildren();
      this.total = total;
      this.add(PAGE);
    }
    add(count) {
      const some = document.createDocumentFragment();
      const first = this.body.rows.length === 0;
      for (const row of this.rows.slice(this.shown, this.shown + count)) some.append(this.line(row));
      this.shown = Math.min(this.rows.length, this.shown + count);
      this.body.append(some);
      const rest = this.rows.length - this.shown;
      this.more.hidden = rest === 0;
      this.more.textContent = `Show more (${rest} left)`;
      this.status.textContent = `${this.rows.length} of ${this.total} rows`;
      if (first) {
        const cell = this.body.querySelector("td.go");
        if (cell) cell.tabIndex = 0;
      }
    }
    move(event) {
      const cell = event.target.closest("td.go");
      if (!cell) return;
      const column = cell.cellIndex;
      const row = cell.parentNode;
      const to = {
        ArrowLeft: row.cells[column - 1], ArrowRight: row.cells[column + 1],
        ArrowUp: row.previousSibling && row.previousSibling.cells[column],
        ArrowDown: row.nextSibling && row.nextSibling.cells[column],
        Home: row.cells[1], End: row.cells[row.cells.length - 1],
      }[event.key];
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.open(cell);
      } else if (to && to.tagName === "TD") {
        event.preventDefault();
        cell.tabIndex = -1;
        to.tabIndex = 0;
        to.focus();
      }
    }
    open(cell) {
      const row = this.rows[cell.parentNode.sectionRowIndex];
      this.show(row, cell.cellIndex - 1);
    }
  }

  // --- the command that runs one cell again --------------------------------------
  // Text that was changed to be shown has a backslash: it is not the name any more.
  const plain = (word) => word && !word.startsWith("-") && !/[\\\n]/.test(word);
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\"'\"'")}'`);
  function filled(pattern, words) {
    const used = Object.keys(words).filter((name) => pattern.includes(name));
    if (!used.length || !used.every((name) => plain(words[name]))) return "";
    return pattern.replace(/@(?:kernel|suite|object)@|VMTEST__NAME/g, (name) => quoted(words[name]));
  }
  function nameOf(id) {
    const head = id.split("[", 1)[0];
    const at = head.lastIndexOf("::");
    return at < 0 ? id : id.slice(at + 2);
  }
  function againTest(row, n) {
    const whole = nameOf(row.id);
    const name = [whole, whole.split("[", 1)[0]].find((one) => /^[\p{L}\p{N}_:+\-./[\]]+$/u.test(one));
    const pattern = name ? D.again.test : D.again.suite;
    const words = { "@kernel@": D.kernels[n].name, "@suite@": D.suites[row.suite], VMTEST__NAME: name };
    return filled(pattern, words);
  }
  function againLoad(row, n) {
    const pattern = row.whole ? D.again.object : D.again.program;
    const words = { "@kernel@": D.kernels[n].name, "@object@": row.argument, VMTEST__NAME: row.program };
    return filled(pattern, words);
  }

  // --- the dialog -------------------------------------------------------------
  let back = null;
  function show(title, facts, text, command = "", log = "") {
    back = document.activeElement;
    $("r-title").textContent = title;
    $("r-facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }));
    $("r-again").hidden = !command;
    $("r-again").querySelector("code").textContent = command;
    $("r-again").querySelector("button").textContent = "Copy";
    $("r-log").hidden = !log;
    const link = $("r-log").querySelector("a");
    if (log) link.href = log; else link.removeAttribute("href");
    link.textContent = log.split("/").slice(-2).map(decoded).join("/");
    const parts = [];
    const [message, details, place, output, stderr, kernel] = text || [];
    if (place) parts.push(element("p", place, "place"));
    if (message) parts.push(element("p", message));
    const written = [["output", output], ["standard error", stderr], ["the kernel's messages", kernel]];
    for (const [name, part] of [["", details], ...written]) {
      if (!part) continue;
      if (name) parts.push(element("p", name, "hint"));
      parts.push(box(part));
    }
    $("r-texts").replaceChildren(...parts);
    if (!$("result").open) $("result").showModal();
    for (const pre of $("r-texts").querySelectorAll("pre")) watch(pre);
  }
  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }
  $("result").addEventListener("close", () => {
    write({ test: "", kernel: "" });
    if (back) back.focus();
  });

  // --- tests ------------------------------------------------------------------
  const TESTS = D.tests.map(([suite, label, id, letters, texts, took], place) => (
    { suite, label, id, letters, texts, took, place, find: (D.suites[suite] + " " + label + " " + id).toLowerCase() }
  ));
  let tests = null;

  function testLine(row, letters = row.letters) {
    const line = element("tr");
    const head = element("th");
    head.scope = "row";
    head.title = row.id;
    head.append(element("span", D.suites[row.suite] + " ", "suite"), document.createTextNode(row.label));
    line.append(head);
    for (const letter of letters) {
      const [, tone, sign] = WORDS[letter];
      const cell = element("td", sign, letter === " " ? tone : tone + " go");
      if (letter !== " ") cell.tabIndex = -1;
      line.append(cell);
    }
    return line;
  }
  function showTest(row, n) {
    const letter = row.letters[n];
    if (letter === " " || letter === undefined) return;
    write({ test: row.id, kernel: D.kernels[n].name });
    const others = D.kernels.map((k, i) => [k.name, row.letters[i]])
      .filter(([, other], i) => i !== n && other !== " ").slice(0, 60)
      .map(([name, other]) => `${name} ${WORDS[other][0]}`).join("; ");
    show(row.id, [
      ["kernel", D.kernels[n].name], ["outcome", WORDS[letter][0]],
      ["why", letter === "-" ? D.kernels[n].why : ""], ["suite", D.suites[row.suite]],
      ["took", row.took.length && row.took[n] ? row.took[n] / 1000 + " s" : ""], ["elsewhere", others],
    ], D.texts[row.texts[n]], againTest(row, n), D.logs[n]);
  }
  function words(field) {
    return (read().get(field) || "").toLowerCase().split(/\s+/).filter(Boolean);
  }
  function chosen() {
    const state = read();
    const searched = words("q");
    const outcomes = state.get("o") || "";
    const suite = state.get("suite") || "";
    const rows = TESTS.filter((row) => (
      searched.every((word) => row.find.includes(word)) && (!suite || D.suites[row.suite] === suite)
      && (!outcomes || [...outcomes].some((letter) => row.letters.includes(letter)))
    ));
    const order = state.get("order");
    if (order === "slow") {
      const most = (row) => row.took.reduce((a, b) => Math.max(a, b), 0);
      rows.sort((a, b) => most(b) - most(a) || a.place - b.place);
    } else if (order === "name") {
      rows.sort((a, b) => (a.label < b.label ? -1 : a.label > b.label ? 1 : a.place - b.place));
    }
    return rows;
  }
  function draw() {
    if (tests) tests.draw(chosen(), TESTS.length);
  }
  function fill() {
    const state = read();
    $("q").value = state.get("q") || "";
    $("suite").value = state.get("suite") || "";
    $("order").value = state.get("order") || "";
    for (const box of $("outcomes").querySelectorAll("input")) {
      box.checked = (state.get("o") || "").includes(box.value);
    }
  }
  if ($("tests")) {
    tests = new Heat($("tests"), $("more"), $("shown"), "test");
    tests.line = testLine;
    tests.show = showTest;
    for (const suite of D.suites) $("suite").append(element("option", suite));
    for (const option of $("suite").options) if (option.text !== "all") option.value = option.text;
    const all = new Set(TESTS.flatMap((row) => [...row.letters]));
    for (const [letter, [word, tone, sign]] of Object.entries(WORDS)) {
      if (!all.has(letter) || letter === " ") continue;
      const label = element("label");
      const box = element("input");
      box.type = "checkbox";
      box.value = letter;
      label.append(box, " ", element("span", sign, "mark " + tone), " " + word);
      $("outcomes").append(label);
    }
    $("filters").hidden = false;
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("filters").addEventListener("input", () => {
      const boxes = [...$("outcomes").querySelectorAll("input:checked")];
      write({
        q: $("q").value, suite: $("suite").value, order: $("order").value,
        o: boxes.map((box) => box.value).join(""),
      });
      draw();
    });
    fill();
    draw();
  }

  // --- loads ------------------------------------------------------------------
  const LOADS = D.loads.map(([object, program, cells]) => {
    const counts = cells.filter((cell) => cell && cell[1] !== "bad" && cell[2]).map((cell) => cell[2]);
    const name = D.objects[object];
    return {
      name, program, cells, whole: program === D.whole, argument: D.again.objects[object],
      least: Math.min(...counts), find: (name + ": " + program).toLowerCase(),
    };
  });
  function heat(cell, least) {
    if (cell[1] === "bad" || cell[1] === "warn" && cell[0]) return cell[1];
    if (!cell[2]) return "quiet";
    const more = cell[2] / least;
    return "h" + [1.01, 1.1, 1.35, 2, 4].filter((limit) => more > limit).length;
  }
  function loadLine(row) {
    const line = element("tr");
    const head = element("th");
    head.scope = "row";
    head.append(element("span", row.name + " ", "suite"), document.createTextNode(row.program));
    line.append(head);
    for (const cell of row.cells) {
      if (!cell) {
        line.append(element("td", "", "quiet"));
        continue;
      }
      const [word, , count, percent] = cell;
      const share = count / D.limit >= 0.1 ? ` ${Math.round(100 * count / D.limit)}%` : "";
      const text = word || (count ? count.toLocaleString("en") + share : "ok");
      const made = element("td", text, heat(cell, row.least) + " number go");
      if (percent) {
        made.append(element("span", (percent > 0 ? "\u25b2" : "\u25bc") + Math.abs(percent) + "%", "change"));
      }
      made.tabIndex = -1;
      line.append(made);
    }
    return line;
  }
  let drawLoads = () => {};
  if ($("loads")) {
    const loads = new Heat($("loads"), $("more-loads"), $("shown-loads"), "program");
    loads.line = loadLine;
    loads.show = (row, n) => {
      if (!row.cells[n]) return;
      const [word, , count, percent, text, log] = row.cells[n];
      const file = log && D.folders[n] ? D.folders[n] + log.split("/").map(encodeURIComponent).join("/") : "";
      show(row.name + ": " + row.program, [
        ["kernel", D.kernels[n].name], ["verdict", word || "accepted"],
        ["why", word === "not loaded" ? D.kernels[n].why : ""],
        ["instructions", count ? count.toLocaleString("en") : ""],
        ["share of the limit", count ? (100 * count / D.limit).toFixed(2) + "%" : ""],
        ["against the row's cheapest", count && isFinite(row.least) ? "x" + (count / row.least).toFixed(2) : ""],
        ["change against the baseline", percent ? percent + "%" : ""],
      ], D.texts[text], againLoad(row, n), file);
    };
    drawLoads = () => {
      $("lq").value = read().get("lq") || "";
      const searched = words("lq");
      loads.draw(LOADS.filter((row) => searched.every((word) => row.find.includes(word))), LOADS.length);
    };
    $("filters-loads").hidden = false;
    $("filters-loads").addEventListener("submit", (event) => event.preventDefault());
    $("lq").addEventListener("input", () => { write({ lq: $("lq").value }); drawLoads(); });
    drawLoads();
  }

  // --- history ----------------------------------------------------------------
  let drawPast = () => {};
  if ($("past")) {
    const columns = D.past.runs.map(([, when, about]) => [when, about]);
    const ALL = { F: "failed on every kernel that ran it", P: "passed on at least one kernel, failed on none" };
    const past = new Heat($("past"), $("more-past"), $("shown-past"), "test", columns);
    past.table.classList.add("past");
    const changes = (row) => {
      const letters = [...D.past.rows[row.place][0]].filter((letter) => letter !== " " && letter !== "-");
      return letters.filter((letter, n) => n && letter !== letters[n - 1]).length;
    };
    const rows = TESTS.map((row) => [changes(row), row]).sort((a, b) => b[0] - a[0] || a[1].place - b[1].place);
    past.line = (row) => testLine(row, D.past.rows[row.place][0]);
    past.show = (row, n) => {
      const [letters, told] = D.past.rows[row.place];
      const letter = letters[n];
      if (letter === " " || letter === undefined) return;
      const each = letter === "M" && D.past.mixed[told && told[n]] || "";
      const where = [...each].map((one, i) => ["FEXL".includes(one), D.past.kernels[i]])
        .filter(([bad]) => bad).map(([, name]) => name).join(", ");
      show(row.id, [
        ["run", D.past.runs[n][2]], ["outcome", ALL[letter] || WORDS[letter][0]],
        ["failed on", where], ["suite", D.suites[row.suite]],
      ]);
    };
    drawPast = () => {
      $("hq").value = read().get("hq") || "";
      const searched = words("hq");
      past.draw(rows.map(([, row]) => row).filter((row) => searched.every((word) => row.find.includes(word))), TESTS.length);
    };
    $("filters-past").hidden = false;
    $("filters-past").addEventListener("submit", (event) => event.preventDefault());
    $("hq").addEventListener("input", () => { write({ hq: $("hq").value }); drawPast(); });
    drawPast();
  }
  // The newest run is on the right: a narrow screen begins there.
  for (const table of document.querySelectorAll("#history .past")) table.parentNode.scrollLeft = table.offsetWidth;

  // --- the rest ---------------------------------------------------------------
  // On a narrow screen what the run was is folded: the first cause is more urgent.
  const narrow = matchMedia("(max-width: 600px)");
  const fold = () => { $("about").open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  fold();
  function redraw() {
    if (tests) fill();
    draw();
    drawLoads();
    drawPast();
  }
  function follow() {
    const state = read();
    if (state.get("test") === null || !tests) return;
    const row = TESTS.find((one) => one.id === state.get("test"));
    const n = D.kernels.findIndex((kernel) => kernel.name === state.get("kernel"));
    if (row && n >= 0) showTest(row, n);
  }
  follow();
  addEventListener("hashchange", () => {
    if (!location.hash.startsWith("#?")) return;
    redraw();
    follow();
  });
  // A link to a section moves there and keeps what the URL remembers.
  document.querySelector("nav").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || !link.hash || !location.hash.startsWith("#?")) return;
    event.preventDefault();
    const heading = document.querySelector(link.getAttribute("href"));
    heading.scrollIntoView();
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  });
  document.addEventListener("click", (event) => {
    const find = event.target.closest("button.find");
    if (find) {
      const [field, section] = tests ? ["q", "matrix"] : ["lq", "verifier"];
      write({ q: "", o: "", suite: "", [field]: find.dataset.find });
      redraw();
      $(section).scrollIntoView();
      return;
    }
    const copy = event.target.closest("button.copy");
    if (!copy) return;
    const code = copy.parentNode.querySelector("code");
    const said = (word) => { copy.textContent = word; };
    const select = () => { getSelection().selectAllChildren(code); said("Selected"); };
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(() => said("Copied"), select);
    else select();
  });
  for (const button of document.querySelectorAll("button.copy")) button.hidden = false;
  $("theme").hidden = false;
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  // What is wider than a sheet of paper gets smaller, and everything is open.
  const SHEET = 960;
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    for (const table of document.querySelectorAll(".scroll > table.heat")) {
      table.style.zoom = Math.min(1, SHEET / table.offsetWidth);
    }
  });
  addEventListener("afterprint", () => {
    for (const table of document.querySelectorAll(".scroll > table.heat")) table.style.zoom = "";
  });
  for (const pre of document.querySelectorAll("pre")) watch(pre);
  if (D.within && decoded(location.pathname.split("/").at(-2) || "") !== D.within) $("moved").hidden = false;
  document.documentElement.dataset.ready = "yes";
})();
