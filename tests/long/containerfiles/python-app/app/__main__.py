from app.pages import render

print(render("world"))
