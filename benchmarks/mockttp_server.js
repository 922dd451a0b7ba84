// mockttp, which answers every request itself. It records what it sees, as it does by default.
//
// usage: mockttp_server.js PACKAGE PORT CA_KEY CA_CERTIFICATE
const [package, port, keyPath, certPath] = process.argv.slice(2);
const mockttp = require(package);
const body = '{"ok": true}';

(async () => {
    const server = mockttp.getLocal({ https: { keyPath, certPath }, http2: false });
    await server.start(Number(port));
    await server.forAnyRequest().thenReply(200, body, {
        'content-type': 'application/json',
        'content-length': String(body.length),
    });
})();
