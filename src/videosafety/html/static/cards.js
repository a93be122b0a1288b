// What a card is made of, on every page: media and words that stay covered until somebody asks for them.
const cards = (() => {
  const { all, make } = page;

  // Reveal and hide: one card at a time, by button, or by a click on its pictures.
  const show = (card, on) => {
    card.classList.toggle("revealed", on);
    const button = card.querySelector("button.reveal");
    button.setAttribute("aria-expanded", String(on));
    button.textContent = on ? "Hide" : "Reveal";
    for (const video of all("video", card)) {
      video.controls = on;
      if (!on) { video.pause(); video.muted = true; }
    }
  };
  const hideAll = () => all(".card.revealed").forEach((card) => show(card, false));

  const said = (text, length, what, masked, language) => {
    const body = make("div", masked ? "secret" : "plain", text);
    body.dir = "auto";
    body.lang = language;
    if (!masked) return body;
    const box = make("div", "masked");
    box.append(make("span", "veil", `${what} masked, ${length} characters`), body);
    return box;
  };

  const strip = (frames) => {
    const box = make("div", "strip");
    box.style.setProperty("--columns", frames.length > 4 ? 8 : frames.length > 1 ? 4 : 2);
    box.style.setProperty("--ratio", `${frames[0][1]}/${frames[0][2]}`);
    frames.forEach(([uri, width, height, pixelated], n) => {
      const image = make("img", pixelated ? "pixelated" : "");
      Object.assign(image, { src: uri, width, height, draggable: false });
      image.alt = `Frame ${n + 1} of ${frames.length}, blurred until revealed`;
      box.append(image);
    });
    return box;
  };

  // The file itself, from beside the page.
  const file = (more) => {
    const box = make("div", "strip file");
    const media = make(more.kind === "image" ? "img" : "video");
    if (more.kind === "image") Object.assign(media, { loading: "lazy", alt: "The picture, blurred until revealed" });
    else Object.assign(media, { preload: "metadata", muted: true, loop: true, playsInline: true });
    media.addEventListener("error", () => box.replaceWith(make("p", "no-media", `Cannot be shown here: ${more.address}`)));
    media.src = more.address;
    box.append(media);
    return box;
  };

  return { show, hideAll, said, strip, file };
})();
