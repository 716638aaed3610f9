// Stands between the front end and the task API, so that a test can count calls, lose answers and take the API away.
import { createServer, request as httpRequest } from "node:http";

export class Proxy {
  /** Each request that came through, with its credentials, and `status` once it was answered. */
  calls = [];
  /** Decides about a request before it is forwarded: "lose" its answer, or { status, headers } instead of one. */
  intercept = () => undefined;
  #server;

  constructor(target, port) {
    this.target = new URL(target);
    this.port = port;
  }

  async start() {
    this.#server = createServer((request, response) => this.#forward(request, response));
    await new Promise((resolve) => this.#server.listen(this.port, "127.0.0.1", resolve));
  }

  /** From now on, nothing listens on the port. */
  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** How many requests the API has answered. */
  count(method, path) {
    return this.calls.filter((call) => call.status && call.method === method && call.url.startsWith(path)).length;
  }

  #forward(request, response) {
    const { method, url, headers } = request;
    const call = { method, url, at: Date.now(), bearer: headers.authorization, cookie: headers.cookie };
    this.calls.push(call);
    const verdict = this.intercept(call);
    if (verdict?.status) {
      response.writeHead(verdict.status, { "content-type": "application/json", ...verdict.headers });
      response.end(JSON.stringify({ message: "Too Many Requests" }));
      return;
    }
    const { hostname, port } = this.target;
    const onward = httpRequest({ host: hostname, port, method, path: url, headers }, (answer) => {
      call.status = answer.statusCode;
      if (verdict === "lose") {
        answer.resume().on("end", () => response.destroy());
        return;
      }
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  }
}
