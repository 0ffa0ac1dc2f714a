// Embedded data are gzip in base64; the browser's own decompression reads them.
"use strict";
const Packed = {
  async bytes(text) {
    const compressed = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  },

  // The charting library, unpacked once and run as a script of the page.
  library: null,
  async plotly() {
    if (!Packed.library) {
      Packed.library = (async () => {
        const source = document.getElementById("plotly-packed").textContent;
        const script = document.createElement("script");
        script.textContent = new TextDecoder().decode(await Packed.bytes(source));
        document.head.append(script);
        return window.Plotly;
      })();
    }
    return Packed.library;
  },

  supported: typeof DecompressionStream === "function",
};
