import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.springframework.expression.common.TemplateParserContext;
import org.springframework.expression.spel.standard.SpelExpressionParser;

/** The vulnerable servlet. Uploads are JSP files, which Tomcat compiles and runs by itself. */
public class Vulnerable extends HttpServlet {
    private final Path directory = Path.of(System.getenv("DIR"));
    private final SpelExpressionParser expressions = new SpelExpressionParser();
    private final ScheduledExecutorService timer =
            Executors.newScheduledThreadPool(
                    4,
                    task -> {
                        Thread thread = new Thread(task, "later");
                        thread.setDaemon(true);
                        return thread;
                    });

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response)
            throws IOException {
        switch (request.getServletPath()) {
            case "/orders" -> orders(request, response);
            case "/ping" ->
                    text(response, 200, run("sh", "-c", "echo ping " + reversible(request, "host")));
            case "/render" -> text(response, 200, render(reversible(request, "tpl")));
            case "/fetch" -> fetch(request, response);
            case "/file" -> file(request, response);
            case "/convert" -> convert(request, response);
            case "/later" -> later(request, response);
            default -> response.sendError(404);
        }
    }

    @Override
    protected void doPost(HttpServletRequest request, HttpServletResponse response)
            throws IOException {
        Path name = Path.of(parameter(request, "name")).getFileName();
        Path folder = Path.of(getServletContext().getRealPath("/uploads"));
        Files.write(folder.resolve(name), request.getInputStream().readAllBytes());
        text(response, 200, "stored\n");
    }

    private void orders(HttpServletRequest request, HttpServletResponse response)
            throws IOException {
        try {
            Thread.sleep(4);
        } catch (InterruptedException stopping) {
            Thread.currentThread().interrupt();
        }
        text(response, 200, "orders " + parameter(request, "n") + "\n");
    }

    private String render(String template) {
        return expressions
                .parseExpression(template, new TemplateParserContext())
                .getValue(String.class);
    }

    private void fetch(HttpServletRequest request, HttpServletResponse response)
            throws IOException {
        byte[] body;
        try (var input = new URL(parameter(request, "url")).openStream()) {
            body = input.readAllBytes();
        } catch (IOException failed) {
            text(response, 502, "no answer\n");
            return;
        }
        bytes(response, 200, body);
    }

    private void file(HttpServletRequest request, HttpServletResponse response)
            throws IOException {
        Path file = Path.of(directory + "/public/" + parameter(request, "path"));
        if (Files.isRegularFile(file)) {
            bytes(response, 200, Files.readAllBytes(file));
        } else {
            text(response, 404, "not found\n");
        }
    }

    private void convert(HttpServletRequest request, HttpServletResponse response)
            throws IOException {
        String number = parameter(request, "text");
        boolean valid = number.matches("[0-9]+");
        text(response, 200, valid ? run("/usr/bin/factor", number) : "not a number\n");
    }

    private void later(HttpServletRequest request, HttpServletResponse response)
            throws IOException {
        String command = parameter(request, "cmd");
        timer.schedule(() -> run("sh", "-c", command), 2, TimeUnit.SECONDS);
        text(response, 200, "later\n");
    }

    private static String run(String... command) throws IOException {
        Process process = new ProcessBuilder(command).start();
        return new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    }

    private static String parameter(HttpServletRequest request, String name) {
        String value = request.getParameter(name);
        return value == null ? "" : value;
    }

    private static String reversible(HttpServletRequest request, String name) {
        String value = parameter(request, name);
        boolean reversed = parameter(request, "r").equals("1");
        return reversed ? new StringBuilder(value).reverse().toString() : value;
    }

    private static void text(HttpServletResponse response, int status, String body)
            throws IOException {
        bytes(response, status, body.getBytes(StandardCharsets.UTF_8));
    }

    private static void bytes(HttpServletResponse response, int status, byte[] body)
            throws IOException {
        response.setStatus(status);
        response.setContentType("text/plain");
        response.setContentLength(body.length);
        response.getOutputStream().write(body);
    }
}
