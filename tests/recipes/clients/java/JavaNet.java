// Everything that a client does, by java.net.http. The proxy is the system's: -Dhttp.proxyHost.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.zip.GZIPInputStream;

class JavaNet {
    static final Map<String, String> GIVEN = System.getenv();
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static HttpRequest.Builder request(String method, String path, BodyPublisher body) {
        return HttpRequest.newBuilder(URI.create(GIVEN.get("BASE") + path))
            .method(method, body)
            .header("Authorization", "Bearer " + GIVEN.get("TOKEN"));
    }

    static int status(String method, String path) throws Exception {
        var sent = request(method, path, BodyPublishers.noBody()).build();
        return CLIENT.send(sent, BodyHandlers.discarding()).statusCode();
    }

    static String digest(BodyPublisher body) throws Exception {
        return CLIENT.send(request("POST", "/digest", body).build(), BodyHandlers.ofString()).body();
    }

    public static void main(String[] arguments) throws Exception {
        String name = GIVEN.get("NAME");
        Path body = Path.of(GIVEN.get("BODY"));
        var bare = HttpRequest.newBuilder(URI.create(GIVEN.get("BASE") + "/echo")).build();
        int denied = CLIENT.send(bare, BodyHandlers.discarding()).statusCode();
        List<Integer> kept = new ArrayList<>();
        for (int turn = 0; turn < 3; turn++) kept.add(status("GET", "/echo"));
        var marked = request("GET", "/underscore", BodyPublishers.noBody()).header("client_id", "x");
        int underscore = CLIENT.send(marked.build(), BodyHandlers.discarding()).statusCode();
        String upload = digest(BodyPublishers.ofFile(body));
        String chunked = digest(BodyPublishers.ofInputStream(() -> {
            try {
                return Files.newInputStream(body);
            } catch (java.io.IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
        }));
        List<String> events = new ArrayList<>();
        var asked = request("GET", "/events/" + name, BodyPublishers.noBody()).build();
        var stream = CLIENT.send(asked, BodyHandlers.ofLines());
        for (String line : (Iterable<String>) stream.body()::iterator) {
            if (line.startsWith("data: ")) {
                events.add("\"" + line.substring("data: ".length()) + "\"");
                status("POST", "/seen/" + name);
            }
        }
        var packed = request("GET", "/gzip", BodyPublishers.noBody()).header("Accept-Encoding", "gzip");
        var squeezed = CLIENT.send(packed.build(), BodyHandlers.ofInputStream()).body();
        String gzip = new String(new GZIPInputStream(squeezed).readAllBytes()).substring(0, 8);
        System.out.printf(
            "{\"version\": \"%s\", \"denied\": %d, \"kept\": %s, \"head\": %d, \"options\": %d, \"underscore\": %d,"
                + " \"upload\": \"%s\", \"chunked\": \"%s\", \"events\": [%s], \"gzip\": \"%s\"}%n",
            System.getProperty("java.version"), denied, kept, status("HEAD", "/echo"),
            status("OPTIONS", "/echo"), underscore, upload, chunked, String.join(",", events), gzip);
    }
}
