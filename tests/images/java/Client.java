import java.net.IDN;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import javax.net.ssl.HttpsURLConnection;

/** Prints what a host answers: java Client HttpClient|HttpsURLConnection HOST. */
public class Client {
    public static void main(String[] args) throws Exception {
        String host = args[1].startsWith("[") ? args[1] : IDN.toASCII(args[1]);
        URI uri = URI.create("https://" + host + "/greeting");
        if (args[0].equals("HttpClient")) {
            HttpRequest request = HttpRequest.newBuilder(uri).build();
            System.out.println(HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body());
        } else {
            HttpsURLConnection connection = (HttpsURLConnection) uri.toURL().openConnection();
            byte[] body = connection.getInputStream().readAllBytes();
            System.out.println(new String(body, StandardCharsets.UTF_8));
        }
    }
}
