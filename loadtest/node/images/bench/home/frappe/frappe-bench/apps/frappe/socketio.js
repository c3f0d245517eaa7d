// The handshake of Engine.IO by long polling, which is what a probe asks for; and who the proxy says is asking.
const fs = require("fs");
const http = require("http");
const config = JSON.parse(fs.readFileSync("/home/frappe/frappe-bench/sites/common_site_config.json"));

http.createServer((request, response) => {
	if (!request.url.startsWith("/socket.io/")) return;
	const sid = Math.random().toString(36).slice(2);
	const opened = { sid, upgrades: ["websocket"], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 };
	response.setHeader("X-Seen-Origin", request.headers.origin || "");
	response.end("0" + JSON.stringify(opened));
}).listen(config.socketio_port || 9000);
