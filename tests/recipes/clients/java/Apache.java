// Everything that a client does, by Apache HttpClient with the settings it has by default. The proxy is the system's: -Dhttp.proxyHost.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.hc.client5.http.classic.methods.HttpUriRequestBase;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.HttpEntity;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.apache.hc.core5.http.io.entity.FileEntity;
import org.apache.hc.core5.http.io.entity.InputStreamEntity;
import org.apache.hc.core5.util.VersionInfo;

class Apache {
    static final Map<String, String> GIVEN = System.getenv();
    static final AtomicReference<String> OFFERS = new AtomicReference<>();
    static final CloseableHttpClient CLIENT = HttpClients.custom().useSystemProperties()
        .addRequestInterceptorLast((request, entity, context) -> {
            if (request.containsHeader("Upgrade")) OFFERS.set(request.getHeader("Upgrade").getValue());
        })
        .build();

    static HttpUriRequestBase request(String method, String path, boolean token) {
        var made = new HttpUriRequestBase(method, java.net.URI.create(GIVEN.get("BASE") + path));
        if (token) made.setHeader("Authorization", "Bearer " + GIVEN.get("TOKEN"));
        return made;
    }

    static int status(HttpUriRequestBase request) throws Exception {
        return CLIENT.execute(request, answer -> {
            EntityUtils.consume(answer.getEntity());
            return answer.getCode();
        });
    }

    static String text(String method, String path, HttpEntity body) throws Exception {
        var made = request(method, path, true);
        made.setEntity(body);
        return CLIENT.execute(made, answer -> EntityUtils.toString(answer.getEntity()));
    }

    public static void main(String[] arguments) throws Exception {
        String name = GIVEN.get("NAME");
        Path body = Path.of(GIVEN.get("BODY"));
        int denied = status(request("GET", "/echo", false));
        List<Integer> kept = new ArrayList<>();
        for (int turn = 0; turn < 3; turn++) kept.add(status(request("GET", "/echo", true)));
        var marked = request("GET", "/underscore", true);
        marked.setHeader("client_id", "x");
        String upload = text("POST", "/digest", new FileEntity(body.toFile(), ContentType.APPLICATION_OCTET_STREAM));
        String chunked = text("POST", "/digest",
            new InputStreamEntity(Files.newInputStream(body), ContentType.APPLICATION_OCTET_STREAM));
        List<String> events = CLIENT.execute(request("GET", "/events/" + name, true), answer -> {
            List<String> found = new ArrayList<>();
            var lines = new BufferedReader(new InputStreamReader(answer.getEntity().getContent()));
            for (String line; (line = lines.readLine()) != null; ) {
                if (!line.startsWith("data: ")) continue;
                found.add("\"" + line.substring("data: ".length()) + "\"");
                try {
                    status(request("POST", "/seen/" + name, true));
                } catch (Exception error) {
                    throw new java.io.IOException(error);
                }
            }
            return found;
        });
        String version = VersionInfo.loadVersionInfo("org.apache.hc.client5", Apache.class.getClassLoader()).getRelease();
        System.out.printf(
            "{\"version\": \"%s\", \"denied\": %d, \"kept\": %s, \"head\": %d, \"options\": %d, \"underscore\": %d,"
                + " \"upload\": \"%s\", \"chunked\": \"%s\", \"events\": [%s], \"gzip\": \"%s\", \"offers\": \"%s\"}%n",
            version, denied, kept, status(request("HEAD", "/echo", true)), status(request("OPTIONS", "/echo", true)),
            status(marked), upload, chunked, String.join(",", events),
            text("GET", "/gzip", null).substring(0, 8), OFFERS.get());
    }
}
