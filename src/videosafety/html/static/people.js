// A queue of clips or rows that one person judges: one at a time, by keys, kept in this browser, exported as JSON lines.
(() => {
  const index = page.data("people-index");
  if (!index) return;
  const { all, byId, make } = page;
  const isClips = index.kind === "clip";
  const NAME = /^[A-Za-z0-9][A-Za-z0-9._@+-]{0,59}$/;
  const ID = /^[A-Za-z0-9][A-Za-z0-9._:@=+-]{0,199}$/;
  const name = byId("annotator");
  const note = byId("note");
  const items = index.items.map(([id, clip, seen, judged], number) => ({ number, id, clip, seen, judged }));
  const choices = new Map(index.choices.map(([id, , key]) => [key, id]));
  const legal = new Set(index.choices.map(([id]) => id));
  let kept = []; // verdicts in the order given
  let done = new Set(); // keys of verdicts
  let barred = new Set(); // clips that this person quarantined
  let stored = true;
  let at = 0;
  let since = 0;
  let card = null;
  let more = null;
  let looked = { media: false, words: false };

  const keyOf = (verdict) => `${verdict.item} ${verdict.seen || ""}`;
  const keyIn = (item) => `${item.id} ${item.seen}`;
  const isOver = (item) => done.has(keyIn(item)) || barred.has(item.clip) || isOld(item);
  const isOld = (item) => item.judged.includes(name.value.trim()); // this person's verdict has reached the build
  const tell = (text) => { byId("told").textContent = text; };

  // Verdicts: what may be kept, where, and how much is left.
  const whole = (v) => v !== null && typeof v === "object" && v.kind === index.kind && v.annotator === name.value.trim()
    && typeof v.item === "string" && ID.test(v.item) && Number.isFinite(v.seconds) && v.seconds >= 0
    && typeof v.note === "string" && v.note.length <= 1000 && (isClips ? wholeClip(v) : wholeRow(v));
  const wholeClip = (v) => v.action === "label"
    ? (v.visual === "safe" && v.category === null) || (v.visual === "harmful" && legal.has(v.category))
    : ["exclude", "quarantine"].includes(v.action) && v.visual === null && v.category === null;
  const wholeRow = (v) => typeof v.clip === "string" && ID.test(v.clip) && /^[0-9a-f]{16}$/.test(v.seen)
    && Array.isArray(v.reasons) && v.reasons.every((reason) => legal.has(reason))
    && (v.action === "reject" ? v.reasons.length > 0 : ["accept", "quarantine"].includes(v.action) && !v.reasons.length);
  const clean = (v) => {
    const { kind, item, annotator, action, seconds } = v;
    const own = isClips ? { visual: v.visual, category: v.category } : { clip: v.clip, seen: v.seen, reasons: v.reasons };
    return { kind, item, annotator, action, ...own, seconds, note: v.note };
  };
  const place = () => `videosafety:people:${index.kind}:${index.name}:${name.value.trim()}`;
  const hold = (verdicts) => {
    kept = verdicts;
    done = new Set(kept.map(keyOf));
    barred = new Set(kept.filter((v) => v.action === "quarantine").map((v) => (isClips ? v.item : v.clip)));
  };
  const load = () => {
    let found = [];
    try { found = JSON.parse(localStorage.getItem(place()) || "[]"); } catch { stored = false; }
    hold(NAME.test(name.value.trim()) && Array.isArray(found) ? found.filter(whole).map(clean) : []);
    count();
  };
  const keep = () => {
    try { localStorage.setItem(place(), JSON.stringify(kept)); stored = true; } catch { stored = false; }
    count();
  };
  const count = () => {
    const over = items.filter(isOver).length;
    byId("progress").max = items.length || 1;
    byId("progress").value = over;
    byId("left").textContent = `${over.toLocaleString("en")} of ${items.length.toLocaleString("en")} done`;
    byId("export").disabled = kept.length === 0;
    byId("unstored").hidden = stored;
  };

  // Exposure: how much was looked at in this session, and when it is time for a break.
  const NONE = { clips: 0, seconds: 0, clipsSince: 0, secondsSince: 0 };
  let exposed = { ...NONE };
  try { exposed = { ...NONE, ...JSON.parse(sessionStorage.getItem("videosafety:exposure") || "{}") }; } catch { /* none */ }
  const expose = (clips, seconds) => {
    exposed.clips += clips; exposed.clipsSince += clips;
    exposed.seconds += seconds; exposed.secondsSince += seconds;
    try { sessionStorage.setItem("videosafety:exposure", JSON.stringify(exposed)); } catch { /* counted on this page */ }
    const time = `${Math.floor(exposed.seconds / 60)} min ${exposed.seconds % 60} s`;
    byId("exposure").textContent = `Seen in this session: ${exposed.clips} revealed, ${time} in view`;
  };
  setInterval(() => {
    if (card && card.matches(".revealed") && document.visibilityState === "visible" && !byId("break").open) expose(0, 1);
  }, 1000);
  const rest = () => {
    if (exposed.clipsSince < index.pause.clips && exposed.secondsSince < index.pause.seconds) return;
    const minutes = Math.round(exposed.secondsSince / 60);
    byId("break-why").textContent = `Since the last break: ${exposed.clipsSince} revealed, ${minutes} min in view.`;
    byId("break").showModal();
  };
  byId("break").addEventListener("close", () => {
    exposed.clipsSince = 0; exposed.secondsSince = 0;
    expose(0, 0);
    since = performance.now();
    byId("review-card").focus();
  });

  // The card: media covered, words covered where one of the labels is harmful.
  const reveal = (on) => {
    if (!card) return;
    cards.show(card, on);
    if (on && !looked.media) expose(1, 0);
    if (on) looked = { media: true, words: true };
  };
  const read = () => {
    if (!card) return;
    card.classList.toggle("worded");
    looked.words = true;
  };
  const play = () => {
    const video = card && card.matches(".revealed") && card.querySelector("video");
    if (!video) tell("Reveal it first (r).");
    else if (video.paused) video.play();
    else video.pause();
  };
  const media = () => {
    const holder = card.querySelector(".media");
    if (more.clip !== null) {
      const { frames, times } = JSON.parse(byId(`clip-${more.clip}`).textContent);
      const box = cards.strip(frames);
      const [, width, height] = frames[0]; // small enough that all frames are in view at once
      box.style.setProperty("--columns", Math.min(frames.length, height > width ? 8 : 4));
      holder.append(box, make("p", "times", times));
    }
    if (more.address) holder.append(cards.file(more));
    for (const box of all(".strip", holder)) box.addEventListener("click", () => reveal(true));
    if (more.note) holder.append(make("p", "no-media", more.note));
  };
  const draw = (item) => {
    more = JSON.parse(byId(`item-${item.number}`).textContent);
    card = byId("card-template").content.cloneNode(true).querySelector(".card");
    const head = card.querySelector("h3");
    head.textContent = item.id;
    head.id = "item-id";
    card.setAttribute("aria-labelledby", head.id);
    const button = card.querySelector("button.reveal");
    button.setAttribute("aria-describedby", head.id);
    button.addEventListener("click", () => reveal(!card.classList.contains("revealed")));
    card.querySelector(".tags").append(...more.tags.map((tag) => make("span", "chip", tag)));
    media();
    for (const [what, text, length, masked, language] of more.parts) {
      const section = make("section", "part");
      section.append(make("h4", "", what), cards.said(text, length, what, masked, language));
      card.querySelector(".answers").append(section);
    }
    return card;
  };
  const show = () => {
    choose(false);
    const item = items[at];
    card = null;
    more = null;
    note.value = "";
    looked = { media: false, words: false };
    const given = item && kept.find((v) => keyOf(v) === keyIn(item));
    let inside;
    if (!item) inside = make("p", "no-media", items.some((one) => !isOver(one)) ? "The end of the queue. Some items were skipped: go back to them." : "Nothing is left. Export your verdicts and send the file to whoever runs the build.");
    else if (barred.has(item.clip)) inside = make("p", "no-media", "Quarantined by you: it is not shown again. Undo takes your last verdict back.");
    else if (isOld(item)) inside = make("p", "no-media", "You have judged this one, and your verdict has reached the build: another person is needed.");
    else inside = draw(item);
    byId("review-card").replaceChildren(inside);
    byId("place").textContent = item ? `${(at + 1).toLocaleString("en")} of ${items.length.toLocaleString("en")}${given ? ", judged: " + saying(given) : ""}` : "";
    for (const control of all("#verdicts button, #note, #review-reveal, #review-words, #review-play")) control.disabled = card === null;
    byId("review-words").hidden = !card || !more.parts.some((part) => part[3]);
    byId("review-play").hidden = !card || !card.querySelector("video");
    since = performance.now();
    byId("review-card").focus({ preventScroll: true });
    document.querySelector(".desk").scrollIntoView({ block: "start", behavior: "instant" });
  };
  const saying = (v) => (v.action === "label" ? [v.visual, v.category].filter(Boolean).join(", ") : [v.action, ...(v.reasons || [])].join(", "));

  // To judge: one key, or a key and what it asks for.
  let picked = null; // what is being chosen: null, or a set
  const choose = (on) => {
    picked = on ? new Set() : null;
    byId("choose").hidden = !on;
    byId("verdicts").hidden = byId("controls").hidden = on; // keys mean other things now
    press();
  };
  const press = () => {
    if (!isClips) all("#choose button[data-choice]").forEach((one) => one.setAttribute("aria-pressed", String(picked !== null && picked.has(one.dataset.choice))));
  };
  const hindrance = () => {
    if (!NAME.test(name.value.trim())) return "Write your code first: letters, digits and . _ @ + -";
    if (!card) return "There is nothing to judge here.";
    const pictures = more.clip !== null || more.address;
    if (more.kind && !pictures) return "Nothing can be seen of this item: exclude it, or skip it.";
    if (pictures && !looked.media) return "Reveal it first (r): what is blurred cannot be judged.";
    return !looked.words && more.parts.some((part) => part[3]) ? "Read the words first (t)." : "";
  };
  const give = (fields, mustLook = true) => {
    const stop = hindrance();
    const named = NAME.test(name.value.trim()) && card !== null;
    if (stop && (mustLook || !named)) { tell(stop); if (card) choose(false); return; }
    const item = items[at];
    const own = isClips ? { visual: null, category: null } : { clip: item.clip, seen: item.seen, reasons: [] };
    const seconds = Math.round((performance.now() - since) / 100) / 10;
    const verdict = { kind: index.kind, item: item.id, annotator: name.value.trim(), ...own, ...fields, seconds, note: note.value.trim() };
    hold([...kept.filter((v) => keyOf(v) !== keyIn(item)), verdict]);
    keep();
    tell(`${item.id}: ${saying(verdict)}.`);
    next();
  };
  const act = (action) => {
    if (action === "safe") give({ action: "label", visual: "safe" });
    else if (action === "harmful" || action === "reject") { const stop = hindrance(); if (stop) tell(stop); else choose(true); }
    else give({ action }, action === "accept");
  };
  const pick = (choice) => {
    if (isClips) { give({ action: "label", visual: "harmful", category: choice }); return; }
    if (!picked.delete(choice)) picked.add(choice);
    press();
  };
  const confirm = () => {
    if (picked.size) give({ action: "reject", reasons: index.choices.map(([id]) => id).filter((id) => picked.has(id)) });
    else tell("Say why: at least one reason.");
  };
  const next = (step = 1) => {
    let to = at;
    do to += step; while (items[to] && step > 0 && isOver(items[to]));
    at = Math.max(0, Math.min(to, items.length));
    show();
    rest();
  };
  const undo = () => {
    const last = kept[kept.length - 1];
    if (!last) { tell("There is nothing to undo."); return; }
    hold(kept.slice(0, -1));
    keep();
    const back = items.findIndex((item) => keyIn(item) === keyOf(last));
    if (back >= 0) at = back;
    show();
    tell(`Taken back: ${last.item}, ${saying(last)}.`);
  };

  // Files out and in.
  const save = () => {
    if (!kept.length) return;
    page.save(`${index.kind}s-${name.value.trim()}.jsonl`, "application/x-ndjson", kept.map((v) => `${JSON.stringify(v)}\n`).join(""));
    tell(`${kept.length.toLocaleString("en")} verdicts exported.`);
  };
  const take = async (file) => {
    if (file.size > 64 * 2 ** 20) { tell("This file is too large to be an export."); return; }
    const lines = (await file.text()).split("\n").filter((line) => line.trim());
    const given = lines.map((line) => { try { return JSON.parse(line); } catch { return null; } });
    const first = given.find((v) => v && typeof v.annotator === "string" && NAME.test(v.annotator));
    if (!name.value.trim() && first) { name.value = first.annotator; load(); }
    const mine = given.filter(whole).map(clean);
    const fresh = [...new Map(mine.map((v) => [keyOf(v), v])).values()].filter((v) => !done.has(keyOf(v)));
    hold([...fresh, ...kept]);
    keep();
    at = -1;
    next();
    tell(`${fresh.length.toLocaleString("en")} verdicts taken in, ${(given.length - fresh.length).toLocaleString("en")} left out.`);
  };
  byId("import").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await take(file);
    event.target.value = "";
  });

  const commands = {
    e: save, i: () => byId("import").click(), g: () => byId("greyscale").click(), z: undo, m: () => note.focus(),
    n: () => next(), arrowright: () => next(), arrowleft: () => next(-1), t: read, p: play,
    r: () => reveal(!(card && card.classList.contains("revealed"))),
    escape: () => cards.hideAll(),
  };
  const chosen = (key) => {
    if (["escape", "backspace", "z"].includes(key)) { choose(false); byId("review-card").focus(); }
    else if (key === "enter" && !isClips) confirm();
    else if (choices.has(key)) pick(choices.get(key));
    else return false;
    return true;
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("break").open) return;
    const key = event.key.toLowerCase();
    if (event.target.closest("input, select, textarea")) {
      if (key === "escape" || key === "enter") byId("review-card").focus();
      return;
    }
    if (event.repeat && !key.startsWith("arrow")) return;
    const action = all("#verdicts button[data-action]").find((button) => button.dataset.key === key);
    if (picked) { if (!chosen(key)) return; }
    else if (action) act(action.dataset.action);
    else if (commands[key]) commands[key]();
    else return;
    event.preventDefault();
  });
  for (const button of all("button[data-action]")) button.addEventListener("click", () => act(button.dataset.action));
  for (const button of all("button[data-choice]")) button.addEventListener("click", () => pick(button.dataset.choice));
  for (const [id, command] of [["export", save], ["import-open", commands.i], ["review-undo", undo], ["review-skip", commands.n],
    ["review-back", commands.arrowleft], ["review-reveal", commands.r], ["review-words", read], ["review-play", play], ["choose-confirm", confirm],
    ["choose-cancel", () => choose(false)], ["break-end", () => byId("break").close()]]) {
    const button = byId(id);
    if (button) button.addEventListener("click", command);
  }
  name.addEventListener("input", load);
  name.addEventListener("change", () => { at = -1; next(); });
  addEventListener("storage", (event) => { if (event.key === place()) load(); }); // the same queue in another tab
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") cards.hideAll(); });
  addEventListener("beforeunload", (event) => { if (!stored && kept.length) event.preventDefault(); });
  load();
  expose(0, 0);
  at = -1;
  next();
  if (!name.value.trim()) name.focus();
})();
