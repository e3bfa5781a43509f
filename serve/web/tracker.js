// Raycommend's tracker; docs/serving/tracker.md says how to use it.
(() => {
  const url = new URL("events", document.currentScript.src);
  const BATCH = 40, MOST = 500, WAIT_MS = 2000, LONGEST_MS = 60000;
  const sending = new Set();
  let user, token, consented = false, queue = [], look, timer, wait = WAIT_MS;

  const now = () => new Date().toISOString();
  const newId = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => (b + 256).toString(16).slice(1)).join("");

  function plan(ms) {
    timer = timer || setTimeout(flush, ms);
  }

  function flush(leaving) {
    clearTimeout(timer);
    timer = 0;
    // No token is good for another user's: one such event, and the whole batch would be refused.
    if (token) queue = queue.filter((event) => event.user_id === user || sending.has(event));
    const ready = queue.filter((event) => !sending.has(event));
    while (ready.length) send(ready.splice(0, BATCH), leaving === true);
  }

  function drop(events) {
    queue = queue.filter((event) => !events.includes(event));
  }

  async function send(events, leaving) {
    const body = JSON.stringify({ sent_at: now(), events });
    const type = "application/json";
    // A beacon carries no token, and to another origin it would need cookies to be allowed.
    if (leaving && !token && url.origin === location.origin && navigator.sendBeacon
        && navigator.sendBeacon(url, new Blob([body], { type }))) return drop(events);
    const headers = { "Content-Type": type };
    if (token) headers.Authorization = "Bearer " + token;
    events.forEach((event) => sending.add(event));
    let again = true;
    try {
      const answer = await fetch(url, { method: "POST", keepalive: true, credentials: "omit", headers, body });
      again = answer.status >= 500 || [401, 408, 429].includes(answer.status);
    } catch { /* no network */ }
    events.forEach((event) => sending.delete(event));
    if (!again) drop(events);
    wait = again ? Math.min(2 * wait, LONGEST_MS) : WAIT_MS;
    if (queue.length) plan(wait);
  }

  function track(type, item, fields) {
    if (!consented || !user) return;
    queue.push({ event_id: newId(), user_id: user, item_id: item, event_type: type, timestamp: now(), ...fields });
    if (queue.length > MOST) queue.splice(0, queue.length - MOST);
    if (queue.length - sending.size >= BATCH) flush();
    else plan(wait);
  }

  // A look lasts while the page is visible; one that goes on after that is another.
  function open() {
    if (look && document.visibilityState === "visible") {
      look.since = performance.now();
      look.at = now();
    }
  }

  function close() {
    if (!look || look.since === undefined) return;
    const dwell_ms = Math.round(performance.now() - look.since);
    look.since = undefined;
    track("view", look.item, { timestamp: look.at, dwell_ms, ...look.fields });
  }

  function view(item, fields) {
    close();
    look = { item, fields };
    open();
  }

  function consent(given) {
    consented = given === true;
    if (!consented) [queue, look] = [[], undefined];
  }

  function start(options) {
    if (user !== undefined && user !== options.user) {
      close();
      flush(true);
      look = undefined;
    }
    ({ user, token } = options);
    if ("consent" in options) consent(options.consent);
  }

  function leave() {
    close();
    flush(true);
  }

  addEventListener("visibilitychange", () => (document.visibilityState === "hidden" ? leave() : open()));
  addEventListener("pagehide", leave);
  window.raycommend = { start, consent, track, view };
})();
