// A page of a grocer, made with ASP.NET: which dish leads is decided for each visitor, and learned from clicks.
// README.md beside this file says how to start it. The page comes out whether the service is there or not.

using System.Net.Http.Json;
using System.Text.Encodings.Web;
using System.Threading.Channels;

var builder = WebApplication.CreateBuilder(args);
builder.Services.AddHttpClient<Ranking>((services, http) =>
{
    var settings = services.GetRequiredService<IConfiguration>();
    http.BaseAddress = new Uri(settings["RANKWARD_ENDPOINT"] ?? "http://127.0.0.1:8080");
    http.DefaultRequestHeaders.Add("Ocp-Apim-Subscription-Key", settings["RANKWARD_KEY"]);
});
builder.Services.AddSingleton<Rewards>();
builder.Services.AddHostedService(services => services.GetRequiredService<Rewards>());
var app = builder.Build();

app.MapGet("/", async (HttpRequest request, Ranking ranking) =>
{
    var device = request.Headers.UserAgent.ToString().Contains("Mobile") ? "phone" : "desktop";
    var decision = await ranking.Rank(new { visitor = new { device }, clock = new { hour = DateTime.UtcNow.Hour } });
    var link = $"/dishes/{decision.RewardActionId}?eventId={UrlEncoder.Default.Encode(decision.EventId)}";
    var others = string.Concat(Ranking.Dishes.Where(d => d.Id != decision.RewardActionId).Select(d => $"<li>{d.Id}</li>"));
    var page = $"<h1><a href=\"{link}\">{decision.RewardActionId} today</a></h1><ul>{others}</ul>";
    return Results.Content(page, "text/html");
});

app.MapGet("/dishes/{dish}", (string dish, string eventId, Rewards rewards) =>
{
    rewards.Report(eventId, 1.0);
    return Results.Redirect("/");
});

app.Run();

/// <summary>An action with its features.</summary>
public record Dish(string Id, object[] Features);

/// <summary>What to show, and the event to report about. No event id: nobody decided, and nothing is reported.</summary>
public record Decision(string RewardActionId, string EventId);

/// <summary>Asks which dish to lead with, within 50 ms; the first dish when there is no answer by then.</summary>
public class Ranking(HttpClient http, ILogger<Ranking> logger)
{
    public static readonly Dish[] Dishes =
    [
        new("pasta", [new { dish = new { veg = true, hot = true, price = 9.5 } }]),
        new("ramen", [new { dish = new { veg = false, hot = true, price = 12.0 } }]),
        new("salad", [new { dish = new { veg = true, hot = false, price = 7.0 } }]),
    ];

    private static readonly TimeSpan Deadline = TimeSpan.FromMilliseconds(50);

    public async Task<Decision> Rank(object context)
    {
        using var over = new CancellationTokenSource(Deadline);
        try
        {
            var question = new { contextFeatures = new[] { context }, actions = Dishes };
            var answer = await http.PostAsJsonAsync("/personalizer/v1.0/rank", question, over.Token);
            answer.EnsureSuccessStatusCode();
            return await answer.Content.ReadFromJsonAsync<Decision>(over.Token) ?? throw new HttpRequestException("no body");
        }
        catch (Exception error) when (error is HttpRequestException or OperationCanceledException)
        {
            // The service may have drawn another dish, too late: a reward of this one must not be credited to that.
            logger.LogWarning("the page leads with the first dish: {Error}", error.Message);
            return new Decision(Dishes[0].Id, "");
        }
    }
}

/// <summary>Sends rewards in the background, each until it is taken; the oldest are given up when too many wait.</summary>
public class Rewards(IHttpClientFactory clients, IConfiguration settings) : BackgroundService
{
    private record Reward(string EventId, double Value, string ReportId);

    private readonly Channel<Reward> waiting = Channel.CreateBounded<Reward>(
        new BoundedChannelOptions(10_000) { FullMode = BoundedChannelFullMode.DropOldest });

    /// <summary>Report how well the shown dish did. The name lets the reward be sent again: it counts once.</summary>
    public void Report(string eventId, double value)
    {
        if (eventId != "")
        {
            waiting.Writer.TryWrite(new Reward(eventId, value, Guid.NewGuid().ToString("N")));
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stopping)
    {
        var http = clients.CreateClient();
        http.BaseAddress = new Uri(settings["RANKWARD_ENDPOINT"] ?? "http://127.0.0.1:8080");
        http.DefaultRequestHeaders.Add("Ocp-Apim-Subscription-Key", settings["RANKWARD_KEY"]);
        await foreach (var reward in waiting.Reader.ReadAllAsync(stopping))
        {
            for (var pause = 0.2; !await Send(http, reward, stopping); pause = Math.Min(30, pause * 2))
            {
                await Task.Delay(TimeSpan.FromSeconds(pause), stopping);
            }
        }
    }

    /// <summary>Send a reward. Says whether it need not be sent again: it was taken, or will never be.</summary>
    private static async Task<bool> Send(HttpClient http, Reward reward, CancellationToken stopping)
    {
        try
        {
            var path = $"/personalizer/v1.0/events/{Uri.EscapeDataString(reward.EventId)}/reward";
            var answer = await http.PostAsJsonAsync(path, new { reward.Value, reward.ReportId }, stopping);
            return (int)answer.StatusCode is not (429 or >= 500);
        }
        catch (HttpRequestException)
        {
            return false;
        }
    }
}
