import java.nio.file.Path;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/** A service that queries all the time, and never notices that its account changes. */
public final class Service {
  private static final AtomicBoolean STOP = new AtomicBoolean();
  private static final AtomicLong OK = new AtomicLong();
  private static final AtomicLong FAILED = new AtomicLong();
  private static final Set<String> ACCOUNTS = ConcurrentHashMap.newKeySet();

  public static void main(String[] arguments) throws Exception {
    RotatingDataSource database = new RotatingDataSource(Path.of(System.getenv("JIT_CREDENTIALS")));
    Thread[] workers = new Thread[2];
    for (int i = 0; i < workers.length; i++) {
      workers[i] = new Thread(() -> work(database));
      workers[i].start();
    }
    Runtime.getRuntime().addShutdownHook(new Thread(() -> finish(database, workers)));
  }

  private static void work(RotatingDataSource database) {
    while (!STOP.get()) {
      try {
        try (Connection connection = database.getConnection();
            Statement statement = connection.createStatement();
            ResultSet row = statement.executeQuery("SELECT current_user, count(*) FROM items")) {
          row.next();
          said(row.getString(1));
        }
        OK.incrementAndGet();
      } catch (SQLException error) {
        FAILED.incrementAndGet();
        System.err.println("a query failed: " + error);
      }
      try {
        Thread.sleep(30);
      } catch (InterruptedException stopped) {
        return;
      }
    }
  }

  private static void said(String account) {
    if (ACCOUNTS.add(account)) {
      System.out.printf("{\"account\": \"%s\"}%n", account);
    }
  }

  private static void finish(RotatingDataSource database, Thread[] workers) {
    STOP.set(true);
    try {
      for (Thread worker : workers) {
        worker.join();
      }
    } catch (InterruptedException stopped) {
      Thread.currentThread().interrupt();
    }
    database.close();
    System.out.printf("{\"queries\": %d, \"failed\": %d, \"accounts\": %d}%n", OK.get(), FAILED.get(), ACCOUNTS.size());
  }
}
