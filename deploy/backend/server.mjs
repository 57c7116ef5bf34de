// A chat that knows nothing of tokens: who somebody is stands in a header that only the gate can set.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http);

io.on("connection", (socket) => {
  const user = socket.handshake.headers["x-auth-subject"];
  socket.emit("hello", `you are ${user}`);
  socket.on("chat", (text) => io.emit("chat", { user, text }));
});

http.listen(3000);
process.on("SIGTERM", () => io.close(() => process.exit(0)));
