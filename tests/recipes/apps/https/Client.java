// Streams, uploads and downloads by java.net.http, with the trust store that JAVA_TOOL_OPTIONS names.
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

class Client {
    static final Map<String, String> GIVEN = System.getenv();
    static final HttpClient CLIENT = HttpClient.newBuilder()
        .version(GIVEN.get("VERSION").equals("2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1)
        .build();

    static HttpRequest request(String method, String path, BodyPublisher body) {
        return HttpRequest.newBuilder(URI.create(GIVEN.get("API") + path)).method(method, body).build();
    }

    public static void main(String[] arguments) throws Exception {
        String name = GIVEN.get("NAME");
        BodyPublisher none = BodyPublishers.noBody();
        List<String> events = new ArrayList<>();
        var stream = CLIENT.send(request("GET", "/v1/stream/" + name, none), BodyHandlers.ofLines());
        for (String line : (Iterable<String>) stream.body()::iterator) {
            if (line.startsWith("data: ")) {
                events.add("\"" + line.substring("data: ".length()) + "\"");
                CLIENT.send(request("POST", "/v1/seen/" + name, none), BodyHandlers.discarding());
            }
        }
        BodyPublisher file = BodyPublishers.ofFile(Path.of(GIVEN.get("BODY")));
        String up = CLIENT.send(request("POST", "/v1/digest", file), BodyHandlers.ofString()).body();
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        HttpResponse<InputStream> answer =
            CLIENT.send(request("GET", "/v1/bytes/" + name, none), BodyHandlers.ofInputStream());
        byte[] buffer = new byte[65536];
        try (InputStream body = answer.body()) {
            for (int read; (read = body.read(buffer)) >= 0; ) digest.update(buffer, 0, read);
        }
        String down = HexFormat.of().formatHex(digest.digest());
        String version = answer.version() == HttpClient.Version.HTTP_2 ? "2" : "1.1";
        System.out.printf(
            "{\"events\": [%s], \"up\": %s, \"down\": \"%s\", \"version\": \"%s\"}%n",
            String.join(",", events), up.replaceAll(".*: |}", ""), down, version);
    }
}
