"""Log lines as Personalizer wrote them and `vw --dsjson` reads them: joined events as JSON, one to a line."""
