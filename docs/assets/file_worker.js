// Pages that are opened from a folder may start no worker, in which the search runs. There it runs in a frame.
if (location.protocol === "file:") {
  const load = (page, source) =>
    new Promise((resolve, reject) => {
      const script = page.createElement("script");
      Object.assign(script, { src: source, onload: resolve, onerror: reject });
      page.body.append(script);
    });

  window.Worker = class extends EventTarget {
    constructor(source) {
      super();
      const frame = document.createElement("iframe");
      Object.assign(frame, { hidden: true, title: "Search", srcdoc: "<!doctype html><body>" });
      this.ready = new Promise((resolve) => (frame.onload = resolve)).then(() => {
        const inner = frame.contentWindow;
        inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        inner.importScripts = (...sources) =>
          sources.reduce((before, one) => before.then(() => load(inner.document, one)), Promise.resolve());
        return load(inner.document, source).then(() => inner);
      });
      document.body.append(frame);
    }

    postMessage(data) {
      this.ready.then((inner) => inner.dispatchEvent(new inner.MessageEvent("message", { data })));
    }
  };
}
