import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;

/**
 * A service that logs the User-Agent with log4j 2.14.1 (CVE-2021-44228).
 *
 * Eight threads, one request each at a time. It answers after it has logged, so what the logged
 * text makes the JVM do comes before the answer: GET /stream sends a first part before.
 */
public final class Service {
    private static final Logger LOG = LogManager.getLogger(Service.class);

    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        try (ServerSocket server = new ServerSocket(0, 256, InetAddress.getLoopbackAddress())) {
            System.out.println(server.getLocalPort());
            System.out.flush();
            while (true) {
                Socket socket = server.accept();
                pool.execute(() -> serve(socket));
            }
        }
    }

    private static void serve(Socket socket) {
        try (socket) {
            socket.setTcpNoDelay(true);
            BufferedReader in = new BufferedReader(
                    new InputStreamReader(socket.getInputStream(), StandardCharsets.ISO_8859_1));
            String request = in.readLine();
            String agent = "";
            for (String line = in.readLine(); line != null && !line.isEmpty(); line = in.readLine()) {
                if (line.toLowerCase().startsWith("user-agent:")) {
                    agent = line.substring("user-agent:".length()).trim();
                }
            }
            OutputStream out = socket.getOutputStream();
            boolean stream = request != null && request.startsWith("GET /stream");
            if (stream) {
                send(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbefore the log\n");
            }
            LOG.error("request from {}", agent);
            String body = "after the log\n";
            send(out, stream ? body : "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: "
                    + body.length() + "\r\n\r\n" + body);
        } catch (Exception gone) {
            // The client hung up; the next one is waiting.
        }
    }

    private static void send(OutputStream out, String text) throws Exception {
        out.write(text.getBytes(StandardCharsets.ISO_8859_1));
        out.flush();
    }
}
