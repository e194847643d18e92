import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * Connections of the account that `jit-agent renew --format properties` keeps in a file. Copy this file.
 *
 * <p>A new lease has a new user name, and HikariCP before 6.3 cannot change name and password in one
 * step: the whole pool is exchanged. The one before serves what it has lent and is closed then, which is
 * long before its account ends: the agent renews at 80 % of the lease. With HikariCP 6.3 and later,
 * {@code HikariDataSource.setCredentials(Credentials.of(name, password))} followed by
 * {@code getHikariPoolMXBean().softEvictConnections()} does the same in place.
 */
final class RotatingDataSource implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(RotatingDataSource.class.getName());
  private static final Duration LOOK = Duration.ofMillis(250);
  /** For leases of an hour; always shorter than the lease. */
  private static final Duration MAX_LIFETIME = Duration.ofMinutes(45);

  private final Path file;
  private final AtomicReference<HikariDataSource> current = new AtomicReference<>();
  private final ScheduledExecutorService watcher =
      Executors.newSingleThreadScheduledExecutor(
          task -> {
            Thread thread = new Thread(task, "jit-credentials");
            thread.setDaemon(true);
            return thread;
          });
  private FileTime seen;

  /** Fails when there is no credential yet: the init container has to have run. */
  RotatingDataSource(Path file) throws IOException {
    this.file = file;
    this.seen = Files.getLastModifiedTime(file);
    current.set(open());
    watcher.scheduleWithFixedDelay(this::look, LOOK.toMillis(), LOOK.toMillis(), TimeUnit.MILLISECONDS);
  }

  /** A connection of the current account. */
  Connection getConnection() throws SQLException {
    while (true) {
      HikariDataSource pool = current.get();
      try {
        return pool.getConnection();
      } catch (SQLException error) {
        // Exchanged and closed between the two lines above: the next one has connections.
        if (pool == current.get()) {
          throw error;
        }
      }
    }
  }

  private void look() {
    try {
      FileTime now = Files.getLastModifiedTime(file);
      if (!now.equals(seen)) {
        HikariDataSource next = open();
        seen = now;
        retire(current.getAndSet(next));
      }
    } catch (Throwable error) {
      // Everything: an exception that gets out ends a scheduled task for good.
      LOG.log(Level.SEVERE, "the new credential could not be taken; trying again", error);
    }
  }

  private HikariDataSource open() throws IOException {
    Properties lease = new Properties();
    // The agent renames a whole file into place: there is no half of one to read.
    try (BufferedReader reader = Files.newBufferedReader(file, StandardCharsets.UTF_8)) {
      lease.load(reader);
    }
    HikariConfig config = new HikariConfig();
    config.setJdbcUrl(
        String.format(
            "jdbc:postgresql://%s:%s/%s",
            lease.getProperty("host"), lease.getProperty("port"), lease.getProperty("database")));
    config.setUsername(lease.getProperty("username"));
    config.setPassword(lease.getProperty("password"));
    config.setMaximumPoolSize(4);
    config.setMaxLifetime(MAX_LIFETIME.toMillis());
    // Throws when the account does not work: the pool before then stays.
    return new HikariDataSource(config);
  }

  private void retire(HikariDataSource pool) throws InterruptedException {
    pool.getHikariPoolMXBean().softEvictConnections();
    // Bounded by the file's next change: then the account of this pool is gone anyway.
    while (pool.getHikariPoolMXBean().getActiveConnections() > 0
        && Files.exists(file)
        && !changed()) {
      Thread.sleep(20);
    }
    pool.close();
  }

  private boolean changed() {
    try {
      return !Files.getLastModifiedTime(file).equals(seen);
    } catch (IOException gone) {
      return true;
    }
  }

  @Override
  public void close() {
    watcher.shutdownNow();
    current.get().close();
  }
}
