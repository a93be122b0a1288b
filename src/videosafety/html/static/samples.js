// The samples: an index of all items is filtered, one page of cards is drawn, words and frames are read when needed.
const samples = (() => {
  const index = page.data("samples-index");
  if (!index) return null;
  const { all, byId, make } = page;
  const PAGE = 24;
  const template = byId("card-template").content;

  // Items as the filters see them.
  const items = index.items.map(([id, evaluation, group, subset, language, answers], number) => ({
    number, id,
    evaluation: index.evaluations[evaluation], group: index.groups[group],
    subset: index.subsets[subset], language: index.languages[language],
    answers: answers.map(([arm, harmful, judged, verdicts]) => ({
      arm: index.arms[arm], harmful, judged,
      verdicts: verdicts.map(([judge, outcome]) => ({ judge: index.judges[judge], outcome })),
    })),
  }));
  const words = (item) => page.data(`samples-${Math.floor(item.number / index.chunk)}`)[item.number % index.chunk];
  const textOf = (item) => {
    if (item.text === undefined) {
      const { query, category, answers } = words(item);
      item.text = [item.id, query, category, ...answers.flatMap((answer) => [answer.query, answer.text])].join("\n").toLowerCase();
    }
    return item.text;
  };

  const { show, hideAll, said, strip, file } = cards;

  const chip = (place) => {
    const [word, glyph, fill, ink] = index.looks[place];
    const element = make("span", "chip outcome");
    element.style.setProperty("--fill", fill);
    element.style.setProperty("--on", ink);
    const mark = make("span", "", glyph);
    mark.setAttribute("aria-hidden", "true");
    element.append(mark, word);
    return element;
  };

  const media = (more, card) => {
    const holder = card.querySelector(".media");
    if (more.clip !== null) {
      holder.append(strip(page.data(`clip-${more.clip}`)));
      if (more.address && more.kind === "video") {
        const play = make("button", "quiet play", "Play the clip");
        play.type = "button";
        play.addEventListener("click", () => { play.replaceWith(file(more)); show(card, true); });
        holder.append(play);
      }
    } else if (more.address) holder.append(file(more));
    const box = holder.querySelector(".strip");
    if (box) box.addEventListener("click", () => show(card, true));
    if (more.note) holder.append(make("p", "no-media", more.note));
  };

  const answer = (item, n, more, blind) => {
    const { arm, verdicts } = item.answers[n];
    const { query, text, length, truncated, fault, reasons } = more.answers[n];
    const section = make("section", "answer");
    section.dataset.arm = arm;
    section.dataset.outcomes = verdicts.map((verdict) => index.outcomes[verdict.outcome]).join(" ");
    section.setAttribute("aria-label", `Answer under ${arm}`);
    const line = make("p");
    line.append(make("span", "arm", arm));
    if (!blind) verdicts.forEach((verdict, k) => {
      const one = make("span", "verdict");
      one.append(chip(verdict.outcome), make("span", "", reasons[k] ? `${verdict.judge}: ${reasons[k]}` : verdict.judge));
      line.append(one);
    });
    if (truncated) line.append(make("span", "chip", "cut at the token limit"));
    section.append(line);
    if (query) section.append(said(query, query.length, "Query of this arm", more.masked, item.language));
    if (fault !== null) section.append(make("p", "", `No answer: ${fault}`));
    else if (text) section.append(said(text, length, "Answer", more.masked, item.language));
    else section.append(make("p", "", "The answer is empty."));
    return section;
  };

  // A card of an item. `only`: this answer alone and no verdict, for a person who judges.
  const draw = (item, only = null) => {
    const more = words(item);
    const card = template.cloneNode(true).querySelector(".card");
    const blind = only !== null;
    Object.assign(card.dataset, { subset: item.subset, language: item.language, group: item.group });
    const head = card.querySelector("h3");
    head.textContent = item.id;
    head.id = `item-${item.number}-id${blind ? "-judged" : ""}`;
    card.setAttribute("aria-labelledby", head.id);
    const button = card.querySelector("button.reveal");
    button.setAttribute("aria-describedby", head.id);
    button.addEventListener("click", () => show(card, !card.classList.contains("revealed")));
    const tags = [blind ? "" : item.group, item.subset, item.language, more.category].filter(Boolean);
    card.querySelector(".tags").append(...tags.map((tag) => make("span", "chip", tag)));
    if (!blind || item.answers[only].arm !== "text") media(more, card);
    card.querySelector(".query").append(said(more.query, more.length, "Query", more.masked, item.language));
    const shown = item.answers.map((_, n) => n).filter((n) => !blind || n === only);
    card.querySelector(".answers").append(...shown.map((n) => answer(item, n, more, blind)));
    return card;
  };

  // Filters: an item stays when one of its answers under the chosen arm has the chosen outcome by the chosen judge.
  const fields = all("[data-filter]");
  const search = byId("filter-text");
  const chosen = () => Object.fromEntries(fields.map((field) => [field.dataset.filter, field.value]));
  const differs = (item, how, judge) => {
    const verdicts = item.answers.flatMap(({ arm, verdicts }) => verdicts.map((verdict) => ({ arm, ...verdict })))
      .filter((verdict) => !judge || verdict.judge === judge);
    if (how === "judges") return item.answers.some(({ verdicts }) => new Set(verdicts.map((v) => v.outcome)).size > 1);
    const arms = how === "arms" ? null : [index.arms[0], how.slice(4)];
    const seen = new Map();
    for (const { arm, judge: by, outcome } of verdicts) {
      if (arms && !arms.includes(arm)) continue;
      if (!seen.has(by)) seen.set(by, outcome);
      else if (seen.get(by) !== outcome) return true;
    }
    return false;
  };
  const fits = (item, wanted, needle) => {
    if (["subset", "language", "group"].some((key) => wanted[key] && item[key] !== wanted[key])) return false;
    if (wanted.differ && !differs(item, wanted.differ, wanted.judge)) return false;
    const one = item.answers.some((answer) => fitsAnswer(answer, wanted));
    return one && (!needle || textOf(item).includes(needle));
  };
  const fitsAnswer = ({ arm, verdicts }, { arm: wantedArm, outcome, judge }) =>
    (!wantedArm || arm === wantedArm) &&
    ((!outcome && !judge) || verdicts.some((verdict) =>
      (!judge || verdict.judge === judge) && (!outcome || index.outcomes[verdict.outcome] === outcome)));

  let found = items;
  let first = 0;
  const shelf = byId("cards");
  let onPage = new Map(); // a card that stays in view stays as it is, revealed or not
  const turn = (start) => {
    first = Math.max(0, Math.min(start, Math.floor(Math.max(0, found.length - 1) / PAGE) * PAGE));
    const { arm } = chosen();
    const wanted = found.slice(first, first + PAGE);
    onPage = new Map(wanted.map((item) => [item.number, onPage.get(item.number) || draw(item)]));
    for (const card of onPage.values()) {
      all(".answer", card).forEach((one) => { one.hidden = Boolean(arm) && one.dataset.arm !== arm; });
    }
    shelf.replaceChildren(...onPage.values());
    const last = Math.min(first + PAGE, found.length);
    const range = found.length ? ` Shown: ${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")}.` : "";
    byId("tally").textContent =
      `${found.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} embedded items match.${range}`;
    for (const button of all("button[data-turn]")) {
      button.disabled = button.dataset.turn === "back" ? first === 0 : last >= found.length;
    }
  };
  const apply = () => {
    const wanted = chosen();
    const needle = search.value.trim().toLowerCase();
    found = items.filter((item) => fits(item, wanted, needle));
    turn(0);
  };

  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, items.length > 500 ? 200 : 0); });
  fields.forEach((field) => field.addEventListener("input", apply));
  byId("filter-reset").addEventListener("click", () => {
    [...fields, search].forEach((field) => { field.value = ""; });
    apply();
  });
  for (const button of all("button[data-turn]")) {
    button.addEventListener("click", () => {
      hideAll();
      turn(first + (button.dataset.turn === "back" ? -PAGE : PAGE));
      byId("samples-list").scrollIntoView({ block: "start" });
    });
  }
  byId("hide-all").addEventListener("click", hideAll);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea") || document.querySelector("dialog[open]");
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === "Escape" || (event.key === "h" && !typing && plain)) hideAll();
  });
  apply();

  // What matches now, answer by answer: the queue of a person who judges.
  const queue = () => {
    const wanted = chosen();
    return found.flatMap((item) => item.answers
      .map((one, n) => ({ item, n, one }))
      .filter(({ one }) => one.judged && fitsAnswer(one, wanted)));
  };
  return { index, items, draw, show, words, queue };
})();
