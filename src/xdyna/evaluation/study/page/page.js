"use strict";
// The study's page. Everything that comes from the server enters the document as text, never as markup.

(() => {
  const page = document.getElementById("page");
  const LETTERS = "ABCDE";
  const DRIFT = 0.06;          // seconds that a video may be away from the others before it is set right
  const PAUSE_AT_END = 500;    // milliseconds between two rounds
  const SLOWEST_RETRY = 8000;

  let session = null;
  let place = 0;               // index of the case shown; session.cases.length is the closing page
  let cell = { video: 0, question: 0 };
  let player = null;
  let view = null;

  // ------------------------------------------------------------------------------------------- document

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null) element.setAttribute(name, String(value));
    }
    element.append(...children);
    return element;
  }

  // ------------------------------------------------------------------------------------- saving answers

  const waiting = [];          // answers that the server has not acknowledged, oldest first
  let sending = false;

  function save(answer) {
    waiting.push(answer);
    showSaved();
    if (!sending) send();
  }

  async function send() {
    sending = true;
    let pause = 500;
    while (waiting.length) {
      try {
        const reply = await fetch("/api/answers", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(waiting[0]),
        });
        if (reply.ok) {
          waiting.shift();
          pause = 500;
          showSaved();
          continue;
        }
        if (reply.status < 500) {
          const refused = waiting.shift();
          const problem = await reply.json().catch(() => ({}));
          forget(refused);
          showSaved(`refused: ${problem.error || reply.status}`);
          continue;
        }
      } catch (error) {
        // the server is away: the answer stays first in line
      }
      showSaved("not saved yet, trying again");
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(2 * pause, SLOWEST_RETRY);
    }
    sending = false;
  }

  function forget(answer) {
    if (session.answers[answer.video]) delete session.answers[answer.video][answer.question];
    if (view) view.refresh();
  }

  function showSaved(text) {
    if (!view || !view.saved) return;
    view.saved.textContent = text || (waiting.length ? "saving" : "all saved");
    view.saved.classList.toggle("waiting", waiting.length > 0 || Boolean(text));
  }

  addEventListener("beforeunload", (event) => {
    if (waiting.length) event.preventDefault();
  });

  // --------------------------------------------------------------------------------------------- session

  function answered(one) {
    let count = 0;
    for (const video of one.videos) count += Object.keys(session.answers[video.id] || {}).length;
    return count;
  }

  const wanted = (one) => one.videos.length * session.questions.length;
  const complete = (one) => answered(one) === wanted(one);
  const sum = (counted) => session.cases.reduce((total, one) => total + counted(one), 0);

  async function enter(code) {
    const reply = await fetch(`/api/session?participant=${encodeURIComponent(code)}`);
    const data = await reply.json();
    if (!reply.ok) throw new Error(data.error);
    session = data;
    session.answers = data.answers || {};
    document.title = session.title;
    sessionStorage.setItem("participant", session.participant);
    const open = session.cases.findIndex((one) => !complete(one));
    show(open < 0 ? session.cases.length : open);
  }

  function welcome() {
    leave();
    sessionStorage.removeItem("participant");
    session = null;
    const code = make("input", {
      id: "code", autocomplete: "off", autocapitalize: "characters", spellcheck: "false", maxlength: 32, required: true,
    });
    const problem = make("p", { class: "problem", role: "alert" });
    const form = make("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        problem.textContent = "";
        try {
          await enter(code.value);
        } catch (error) {
          problem.textContent = error.message;
        }
      },
    }, make("label", { for: "code" }, "Your participant code "), code, make("button", { type: "submit" }, "Start"));
    page.replaceChildren(make("section", { class: "welcome" },
      make("h1", {}, "User study"),
      make("p", {}, "You will see a picture of a person, a video whose motion the person should follow, and several " +
        "computer-made videos of that person side by side. Rate each of them from 0 (worst) to 5 (best)."),
      make("p", {}, "Every answer is saved at once. To go on later, come back with the same code."),
      form, problem));
    code.focus();
  }

  // --------------------------------------------------------------------------------------------- videos

  const loaded = new Map();    // address -> promise of an object URL; whole files, so that no network makes one stutter

  function load(address) {
    if (!loaded.has(address)) {
      const promise = fetchWhole(address);
      loaded.set(address, promise);
      promise.catch(() => loaded.delete(address));
    }
    return loaded.get(address);
  }

  async function fetchWhole(address) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const reply = await fetch(address);
        if (!reply.ok) throw new Error(`status ${reply.status}`);
        return URL.createObjectURL(await reply.blob());
      } catch (error) {
        if (attempt === 4) throw error;
        await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
      }
    }
  }

  const addresses = (one) => [one.driving, ...one.videos.map((video) => video.file)];

  function keepOnly(cases) {
    const needed = new Set(cases.flatMap(addresses));
    for (const [address, promise] of loaded) {
      if (needed.has(address)) continue;
      loaded.delete(address);
      promise.then((url) => URL.revokeObjectURL(url), () => {});
    }
  }

  // Plays videos in step: the longest of those to rate is the clock, the others are held to it.
  class Player {
    constructor(videos, driving, onTick) {
      this.videos = videos;
      this.all = [driving, ...videos];
      this.playing = false;
      this.onTick = onTick;
      this.timer = setInterval(() => this.tick(), 100);
    }

    get clock() {
      return this.videos.reduce((a, b) => ((b.duration || 0) > (a.duration || 0) ? b : a));
    }

    get length() { return this.clock.duration || 0; }

    get now() { return this.clock.currentTime; }

    set(seconds) {
      for (const video of this.all) video.currentTime = Math.min(seconds, video.duration || 0);
    }

    play() {
      this.playing = true;
      if (this.now >= this.length - 0.02) this.set(0);
      for (const video of this.all) {
        if (video.currentTime < (video.duration || 0) - 0.02) video.play().catch(() => {});
      }
      this.onTick();
    }

    pause() {
      this.playing = false;
      for (const video of this.all) video.pause();
      this.set(this.now);
      this.onTick();
    }

    toggle() { if (this.playing) this.pause(); else this.play(); }

    restart() { this.set(0); this.play(); }

    tick() {
      this.onTick();
      if (!this.playing || this.resting) return;
      const clock = this.clock;
      if (clock.ended || this.now >= this.length - 0.01) {
        this.resting = setTimeout(() => {
          this.resting = null;
          if (this.playing) this.restart();
        }, PAUSE_AT_END);
        return;
      }
      for (const video of this.all) {
        if (video === clock || video.seeking) continue;
        const target = Math.min(this.now, video.duration || 0);
        if (Math.abs(video.currentTime - target) > DRIFT) video.currentTime = target;
        if (video.paused && !video.ended && target < (video.duration || 0) - 0.02) video.play().catch(() => {});
      }
    }

    close() {
      clearInterval(this.timer);
      clearTimeout(this.resting);
      for (const video of this.all) { video.pause(); video.removeAttribute("src"); video.load(); }
    }
  }

  function leave() {
    if (player) player.close();
    player = null;
    view = null;
  }

  // ----------------------------------------------------------------------------------------------- cases

  function show(index) {
    leave();
    place = Math.max(0, Math.min(index, session.cases.length));
    if (place === session.cases.length) closing();
    else caseView(session.cases[place]);
  }

  function bar(title) {
    const saved = make("span", { class: "saved", role: "status" });
    const count = make("span", { id: "count" });
    const progress = make("progress", { "aria-label": "answers given" });
    const element = make("div", { class: "bar" },
      make("h1", {}, title), progress, count, make("span", { class: "grow" }), saved,
      make("span", {}, `Code ${session.participant}`), make("button", { type: "button", onclick: welcome }, "Leave"));
    const refresh = () => {
      progress.max = sum(wanted);
      progress.value = sum(answered);
      count.textContent = `${sum(answered)} of ${sum(wanted)} answers`;
    };
    return { element, saved, refresh };
  }

  function caseView(one) {
    const top = bar(`Case ${place + 1} of ${session.cases.length}`);
    const groups = one.videos.map((video, v) => session.questions.map((question, q) => group(one, video, v, question, q)));
    const videos = one.videos.map(() => make("video", { muted: true, playsinline: true, disablepictureinpicture: true }));
    const driving = make("video", { muted: true, playsinline: true, disablepictureinpicture: true });
    for (const video of [driving, ...videos]) video.muted = true;

    const play = make("button", { type: "button", id: "play", disabled: true, onclick: () => player && player.toggle() }, "Play");
    const restart = make("button", { type: "button", disabled: true, onclick: () => player && player.restart() }, "From the start");
    const seek = make("input", {
      type: "range", min: 0, max: 1000, value: 0, disabled: true, "aria-label": "time",
      oninput: () => { if (player) { player.pause(); player.set(player.length * seek.value / 1000); } },
    });
    const problem = make("p", { class: "problem", role: "alert" });
    const previous = make("button", { type: "button", id: "previous", disabled: place === 0, onclick: () => show(place - 1) }, "Previous case");
    const next = make("button", { type: "button", id: "next", onclick: () => show(place + 1) }, "Next case");

    const tiles = make("div", { class: `tiles of-${one.videos.length}` },
      make("figure", { class: "tile given" }, make("figcaption", {}, "Reference"), make("img", { src: one.reference, alt: "the person to animate" })),
      make("figure", { class: "tile given" }, make("figcaption", {}, "Driving video"), driving),
      ...videos.map((video, v) => make("figure", { class: "tile" }, make("figcaption", {}, `Video ${LETTERS[v]}`), video, ...groups[v].map((g) => g.element))));
    const keys = make("p", { class: "keys" });
    for (const [key, what] of [["0", "to"], ["5", "rate and go on, "], ["arrows", "choose, "], ["space", "play or pause, "],
      ["R", "from the start, "], ["N", "next case, "], ["P", "previous case"]]) {
      keys.append(make("kbd", {}, key), ` ${what} `);
    }
    page.replaceChildren(top.element, make("div", { class: "controls" }, play, restart, seek, previous, next), problem,
      make("ul", { class: "questions" }, ...session.questions.map((q) => make("li", {}, make("b", {}, q.label), `: ${q.text}`))),
      tiles, keys);

    const here = {
      saved: top.saved,
      groups,
      refresh() {
        top.refresh();
        groups.flat().forEach((g) => g.refresh());
        next.textContent = complete(one) ? "Next case" : "Next case (some answers are missing)";
      },
    };
    view = here;
    view.refresh();
    showSaved();
    const missing = firstOpen(one, 0);
    focusCell(missing ? missing.video : 0, missing ? missing.question : 0);

    keepOnly(session.cases.slice(place, place + 2));
    Promise.all([driving, ...videos].map(async (video, i) => {
      const url = await load(addresses(one)[i]);
      await new Promise((resolve, reject) => {
        video.addEventListener("loadeddata", resolve, { once: true });
        video.addEventListener("error", () => reject(new Error("it cannot be played")), { once: true });
        video.preload = "auto";
        video.src = url;
      });
    })).then(() => {
      if (view !== here) return;
      for (const control of [play, restart, seek]) control.disabled = false;
      player = new Player(videos, driving, () => {
        play.textContent = player && player.playing ? "Pause" : "Play";
        if (player && document.activeElement !== seek) seek.value = player.length ? 1000 * player.now / player.length : 0;
      });
      player.play();
      if (place + 1 < session.cases.length) addresses(session.cases[place + 1]).forEach((address) => load(address).catch(() => {}));
    }).catch((error) => {
      if (view === here) problem.textContent = `A video of this case cannot be shown (${error.message}). Please tell who runs the study.`;
    });
  }

  function group(one, video, v, question, q) {
    const buttons = [];
    for (let rating = session.lowest; rating <= session.highest; rating += 1) {
      buttons.push(make("button", {
        type: "button", role: "radio", tabindex: -1, "data-rating": rating, onclick: () => { focusCell(v, q); rate(rating, false); },
      }, String(rating)));
    }
    const element = make("div", {
      class: "group", role: "radiogroup", tabindex: -1, "aria-label": `Video ${LETTERS[v]}, ${question.label}`,
      "data-video": v, "data-question": q, onfocus: () => { cell = { video: v, question: q }; },
    }, make("span", { class: "name" }, question.label), make("div", { class: "scale" }, ...buttons));
    const refresh = () => {
      const given = (session.answers[video.id] || {})[question.key];
      buttons.forEach((button, i) => button.setAttribute("aria-checked", String(session.lowest + i === given)));
    };
    return { element, refresh };
  }

  function rate(rating, advance) {
    const one = session.cases[place];
    const video = one.videos[cell.video];
    const question = session.questions[cell.question];
    const given = session.answers[video.id] || (session.answers[video.id] = {});
    if (given[question.key] !== rating) {
      given[question.key] = rating;
      save({ participant: session.participant, case: one.id, video: video.id, question: question.key, rating });
    }
    view.refresh();
    if (!advance) return;
    const open = firstOpen(one, cell.video * session.questions.length + cell.question);
    if (open) focusCell(open.video, open.question);
  }

  // The first cell without an answer, looking from a cell on and round.
  function firstOpen(one, from) {
    const count = wanted(one);
    for (let step = 0; step < count; step += 1) {
      const at = (from + step) % count;
      const found = { video: Math.floor(at / session.questions.length), question: at % session.questions.length };
      const given = session.answers[one.videos[found.video].id] || {};
      if (given[session.questions[found.question].key] === undefined) return found;
    }
    return null;
  }

  function focusCell(video, question) {
    cell = { video, question };
    view.groups.flat().forEach((g) => { g.element.tabIndex = -1; });
    const element = view.groups[video][question].element;
    element.tabIndex = 0;
    element.focus({ preventScroll: true });
  }

  function closing() {
    const top = bar("The end");
    const open = session.cases.map((one, i) => [one, i]).filter(([one]) => !complete(one));
    page.replaceChildren(top.element, make("section", { class: "welcome" },
      make("h1", {}, open.length ? "Some answers are missing" : "Thank you, that was all"),
      make("p", {}, open.length ? "Please go back to:" : "All your answers are saved. You may close this page."),
      make("div", { class: "open" }, ...open.map(([one, i]) =>
        make("button", { type: "button", onclick: () => show(i) }, `Case ${i + 1} (${answered(one)} of ${wanted(one)})`))),
      make("button", { type: "button", id: "back", onclick: () => show(session.cases.length - 1) }, "Back to the last case")));
    view = { saved: top.saved, groups: null, refresh: top.refresh };
    view.refresh();
    showSaved();
  }

  // -------------------------------------------------------------------------------------------- keyboard

  addEventListener("keydown", (event) => {
    if (!session || !view || event.ctrlKey || event.altKey || event.metaKey) return undefined;
    const key = event.key.toLowerCase();
    // a key held down is one answer, one step; arrows may run
    if (event.repeat && !key.startsWith("arrow")) return event.preventDefault();
    const inRange = event.target instanceof HTMLInputElement;
    if (key === "p") show(place - 1);
    else if (key === "n" && view.groups) show(place + 1);
    else if (!view.groups) return undefined;
    else if (key === " ") { if (player) player.toggle(); }
    else if (key === "r") { if (player) player.restart(); }
    else if (/^[0-9]$/.test(key) && Number(key) >= session.lowest && Number(key) <= session.highest) rate(Number(key), true);
    else if (!inRange && key.startsWith("arrow")) {
      const videos = session.cases[place].videos.length;
      const questions = session.questions.length;
      const [across, down] = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[key];
      focusCell((cell.video + across + videos) % videos, (cell.question + down + questions) % questions);
    } else return undefined;
    return event.preventDefault();
  });

  // a reload, or the same tab again, goes on where it was
  const known = sessionStorage.getItem("participant");
  if (known) enter(known).catch(welcome);
  else welcome();
})();
